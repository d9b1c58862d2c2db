//! The connections to upstreams and clients: which addresses a name has, and how one that fell silent is noticed.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use torwart_tests::{Gateway, PolicyFile, Upstream, address, client_address, endpoint, eventually};

/// A gateway whose upstream is a name with these addresses.
fn gateway(addresses: [IpAddr; 2], port: u16) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let lines = addresses.map(|address| format!("{address} two.example\n")).concat();
    fs::write(&hosts, format!("127.0.0.1 localhost\n{lines}")).unwrap();
    let policy = PolicyFile::to(SocketAddr::new(addresses[0], port)).text();
    let policy = policy.replace(&format!("host: \"{}\"", addresses[0]), "host: two.example");
    (Gateway::builder().hosts(&hosts).start(&policy), folder)
}

#[test]
fn all_addresses_of_an_upstreams_name_are_tried() {
    // Loopback addresses on which nothing listens at this port.
    let nobody = client_address(77);
    for other_first in [false, true] {
        let upstream = Upstream::start();
        let mut addresses = [nobody, address()];
        if other_first {
            addresses.reverse();
        }
        let (gateway, _hosts) = gateway(addresses, upstream.endpoint.port());
        for _ in 0..2 {
            let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], b"\r\n");
            assert_eq!(reply.code, 250, "{addresses:?}: {reply}");
            // The next message makes a connection of its own.
            upstream.drop_connections();
        }
        assert_eq!(upstream.received().len(), 2);
    }
    let (gateway, _hosts) = gateway([nobody, client_address(78)], endpoint().port());
    let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], b"\r\n");
    assert_eq!((reply.code, reply.enhanced()), (451, "4.4.1"), "{reply}");
}

/// An address as `/proc/net/tcp` shows it: the octets of an IPv4 address from the last to the first.
fn shown(address: SocketAddr) -> String {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not of IPv4") };
    format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port())
}

/// What is left of the keepalive timer of the connection with these ends, in hundredths of a second. While something is
/// on its way another timer runs.
fn keepalive(local: Option<SocketAddr>, remote: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let [_, from, to, state, _, timer, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let is_it = to == shown(remote) && local.is_none_or(|local| from == shown(local)) && state == "01";
        // 02 is the timer of keepalive.
        let left = timer.strip_prefix("02:").filter(|_| is_it)?;
        u64::from_str_radix(left, 16).ok()
    })
}

#[test]
fn a_peer_that_vanished_is_noticed_by_keepalive_on_both_sides() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    for (local, remote) in [(Some(gateway.smtp), client.local_address()), (None, upstream.endpoint)] {
        eventually("a minute of keepalive runs", || {
            keepalive(local, remote).is_some_and(|left| (1..=6000).contains(&left))
        });
    }
}
