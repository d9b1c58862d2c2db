//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`, 2020/03/05): who the client is when a load
//! balancer stands in front.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use ppp::v1;
use ppp::v2;

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// They are the beginning of a header: more are needed.
    Incomplete,
    /// The header takes this many bytes; what follows belongs to the session.
    Complete { length: usize, source: Source },
}

/// Whom the header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Client(SocketAddr),
    /// The proxy speaks for itself (LOCAL: a health check), or does not know (UNKNOWN, AF_UNSPEC, AF_UNIX): the
    /// socket's own address holds.
    Itself,
}

/// Why a connection that must begin with a header is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyFault {
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("the PROXY header is too long")]
    TooLong,
    #[error("the PROXY header's checksum is wrong")]
    Checksum,
}

/// How long the header may take to arrive. The specification recommends 3 s at least, for a lost SYN.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Section 2.1: the longest line of version 1, CRLF included.
const V1_LONGEST: usize = 107;
/// A version 2 header with TLVs. The protocol allows 64 KiB; load balancers send some hundred bytes.
const V2_LONGEST: usize = 4096;
/// The bytes of a version 2 header before its addresses: signature, version, family, length.
const V2_FIXED: usize = 16;
/// The bytes of a TLV before its value: type, length.
const TLV_FIXED: usize = 3;
/// Section 2.2.3.
const TLV_CRC32C: u8 = 0x03;

/// Reads a header from the front of `input`.
pub(crate) fn decode(input: &[u8]) -> Result<Decoded, ProxyFault> {
    if starts_alike(input, v2::PROTOCOL_PREFIX) {
        return decode_v2(input);
    }
    if starts_alike(input, v1::PROTOCOL_PREFIX.as_bytes()) {
        return decode_v1(input);
    }
    Err(ProxyFault::Malformed)
}

/// The entry for fuzzing: never panics, never claims more bytes than there are, and does not change its mind when
/// more bytes follow.
pub fn fuzz_header(input: &[u8]) {
    let outcome = decode(input);
    if let Ok(Decoded::Complete { length, .. }) = outcome {
        assert!(length <= input.len(), "the header is longer than the input");
        assert_eq!(decode(&input[..length]), outcome, "what follows the header changed it");
        for shorter in 0..length {
            assert_eq!(decode(&input[..shorter]), Ok(Decoded::Incomplete), "cut at {shorter}");
        }
    }
}

/// Whether `input` begins with `prefix`, as far as both go.
fn starts_alike(input: &[u8], prefix: &[u8]) -> bool {
    input.iter().zip(prefix).all(|(a, b)| a == b)
}

fn decode_v1(input: &[u8]) -> Result<Decoded, ProxyFault> {
    let within = input.get(..V1_LONGEST).unwrap_or(input);
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() >= V1_LONGEST { Err(ProxyFault::TooLong) } else { Ok(Decoded::Incomplete) };
    };
    let length = end + 2;
    let line = within.get(..length).ok_or(ProxyFault::Malformed)?;
    let header = v1::Header::try_from(line).map_err(|_| ProxyFault::Malformed)?;
    let source = match header.addresses {
        v1::Addresses::Unknown => Source::Itself,
        v1::Addresses::Tcp4(pair) => client((pair.source_address, pair.source_port)),
        v1::Addresses::Tcp6(pair) => client((pair.source_address, pair.source_port)),
    };
    Ok(Decoded::Complete { length, source })
}

fn decode_v2(input: &[u8]) -> Result<Decoded, ProxyFault> {
    let Some(fixed) = input.get(..V2_FIXED) else { return Ok(Decoded::Incomplete) };
    let &[.., high, low] = fixed else { return Ok(Decoded::Incomplete) };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_LONGEST {
        return Err(ProxyFault::TooLong);
    }
    let Some(whole) = input.get(..length) else { return Ok(Decoded::Incomplete) };
    let header = v2::Header::try_from(whole).map_err(|_| ProxyFault::Malformed)?;
    verify_checksum(&header, whole)?;
    let source = match (header.command, &header.addresses) {
        (v2::Command::Local, _) => Source::Itself,
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Source::Itself,
        (v2::Command::Proxy, _) if header.protocol != v2::Protocol::Stream => {
            return Err(ProxyFault::Malformed);
        }
        (v2::Command::Proxy, v2::Addresses::IPv4(pair)) => client((pair.source_address, pair.source_port)),
        (v2::Command::Proxy, v2::Addresses::IPv6(pair)) => client((pair.source_address, pair.source_port)),
    };
    Ok(Decoded::Complete { length, source })
}

fn client(address: impl Into<SocketAddr>) -> Source {
    let address = address.into();
    Source::Client(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Checks PP2_TYPE_CRC32C where it is given: the checksum of the whole header with these four bytes as zero.
fn verify_checksum(header: &v2::Header<'_>, whole: &[u8]) -> Result<(), ProxyFault> {
    if header.command == v2::Command::Local {
        // section 2.2: what follows in a LOCAL header is to be skipped
        return Ok(());
    }
    let tlv_start = whole.len() - header.tlv_bytes().len();
    let mut at = tlv_start;
    for tlv in header.tlvs() {
        let tlv = tlv.map_err(|_| ProxyFault::Malformed)?;
        let value_start = at + TLV_FIXED;
        at = value_start + tlv.value.len();
        if tlv.kind != TLV_CRC32C {
            continue;
        }
        let given: [u8; 4] = tlv.value.as_ref().try_into().map_err(|_| ProxyFault::Checksum)?;
        let zeroed =
            whole.iter().enumerate().map(|(i, byte)| if (value_start..at).contains(&i) { 0 } else { *byte });
        if crc32c(zeroed) != u32::from_be_bytes(given) {
            return Err(ProxyFault::Checksum);
        }
    }
    Ok(())
}

/// RFC 4960 appendix B (reflected Castagnoli polynomial), bit by bit: a header is short.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let sum = bytes.fold(u32::MAX, |sum, byte| {
        (0..8)
            .fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 })
    });
    !sum
}
