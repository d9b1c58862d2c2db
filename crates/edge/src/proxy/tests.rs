use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, payload].concat()
}

fn ipv4_payload() -> Vec<u8> {
    [&[192, 0, 2, 7][..], &[10, 0, 0, 1], &40000u16.to_be_bytes(), &25u16.to_be_bytes()].concat()
}

fn ipv6_payload() -> Vec<u8> {
    let mut source = [0; 16];
    source[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    source[15] = 9;
    [&source[..], &[0; 16], &40001u16.to_be_bytes(), &25u16.to_be_bytes()].concat()
}

fn from(address: &str) -> Source {
    Source::Client(address.parse().unwrap())
}

#[test]
fn whole_headers_name_their_client() {
    let mapped = {
        let mut source = [0; 16];
        source[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 9]);
        [&source[..], &[0; 16], &1u16.to_be_bytes(), &25u16.to_be_bytes()].concat()
    };
    let with_tlvs = [ipv4_payload(), vec![0x02, 0, 5], b"mx.ex".to_vec(), vec![0x04, 0, 3, 0, 0, 0]].concat();
    let table: &[(Vec<u8>, Source)] = &[
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 25\r\n".to_vec(), from("192.0.2.7:40000")),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 40001 25\r\n".to_vec(), from("[2001:db8::9]:40001")),
        (b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 25\r\n".to_vec(), from("192.0.2.9:1")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Source::Itself),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), Source::Itself),
        (v2(1, 0x11, &ipv4_payload()), from("192.0.2.7:40000")),
        (v2(1, 0x21, &ipv6_payload()), from("[2001:db8::9]:40001")),
        (v2(1, 0x21, &mapped), from("192.0.2.9:1")),
        (v2(1, 0x11, &with_tlvs), from("192.0.2.7:40000")),
        (v2(0, 0x00, &[]), Source::Itself),
        (v2(0, 0x11, &ipv4_payload()), Source::Itself),
        (v2(1, 0x00, &[]), Source::Itself),
        (v2(1, 0x31, &[0; 216]), Source::Itself),
    ];
    for (header, source) in table {
        let shown = header.escape_ascii();
        let length = header.len();
        assert_eq!(decode(header), Ok(Decoded::Complete { length, source: *source }), "{shown}");
        let followed = [&header[..], b"EHLO client.example\r\n"].concat();
        assert_eq!(decode(&followed), Ok(Decoded::Complete { length, source: *source }), "{shown} and more");
        for cut in 0..length {
            assert_eq!(decode(&header[..cut]), Ok(Decoded::Incomplete), "{shown} cut at {cut}");
        }
        fuzz_header(&followed);
    }
}

#[test]
fn what_is_no_header_is_refused() {
    let long_line = [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat();
    let table: &[(Vec<u8>, ProxyFault)] = &[
        (b"EHLO client.example\r\n".to_vec(), ProxyFault::Malformed),
        (b"PROXX".to_vec(), ProxyFault::Malformed),
        (b"proxy TCP4 192.0.2.7 10.0.0.1 40000 25\r\n".to_vec(), ProxyFault::Malformed),
        (b"PROXY TCP4\r\n".to_vec(), ProxyFault::Malformed),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 40000\r\n".to_vec(), ProxyFault::Malformed),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 70000 25\r\n".to_vec(), ProxyFault::Malformed),
        (b"PROXY TCP4 2001:db8::9 ::1 40000 25\r\n".to_vec(), ProxyFault::Malformed),
        (b"PROXY TCP5 192.0.2.7 10.0.0.1 40000 25\r\n".to_vec(), ProxyFault::Malformed),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4\xff 25\r\n".to_vec(), ProxyFault::Malformed),
        (long_line, ProxyFault::TooLong),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), ProxyFault::Malformed),
        ([SIGNATURE, &[0x11, 0x11, 0, 0]].concat(), ProxyFault::Malformed),
        (v2(2, 0x11, &ipv4_payload()), ProxyFault::Malformed),
        (v2(1, 0x11, &ipv4_payload()[..8]), ProxyFault::Malformed),
        (v2(1, 0x12, &ipv4_payload()), ProxyFault::Malformed),
        (v2(1, 0x11, &[ipv4_payload(), vec![0x04, 0, 9, 1]].concat()), ProxyFault::Malformed),
        ([SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(), ProxyFault::TooLong),
        (v2(1, 0x11, &[ipv4_payload(), vec![0x03, 0, 4, 1, 2, 3, 4]].concat()), ProxyFault::Checksum),
        (v2(1, 0x11, &[ipv4_payload(), vec![0x03, 0, 1, 1]].concat()), ProxyFault::Checksum),
    ];
    for (input, fault) in table {
        assert_eq!(decode(input), Err(*fault), "{}", input.escape_ascii());
    }
}

#[test]
fn a_right_checksum_is_accepted() {
    let mut header = v2(1, 0x11, &[ipv4_payload(), vec![0x03, 0, 4, 0, 0, 0, 0]].concat());
    let sum = crc32c(header.iter().copied()).to_be_bytes();
    let at = header.len() - 4;
    header[at..].copy_from_slice(&sum);
    assert_eq!(
        decode(&header),
        Ok(Decoded::Complete { length: header.len(), source: from("192.0.2.7:40000") })
    );
}

#[test]
fn the_checksum_is_castagnoli_s() {
    // RFC 3720 appendix B.4: 32 bytes of zeros; and the usual check value
    assert_eq!(crc32c([0u8; 32].into_iter()), 0x8a91_36aa);
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
}

#[test]
fn the_fuzz_target_holds_on_its_seeds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/proxy_header");
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
    assert!(seeds.len() >= 4, "the seeds are gone");
    for seed in seeds {
        // the name is shown if the entry panics
        println!("{}", seed.display());
        fuzz_header(&std::fs::read(&seed).unwrap());
    }
}
