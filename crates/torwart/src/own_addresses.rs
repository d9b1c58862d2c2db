//! The addresses of this machine, for a listener that takes connections on all of them.
//!
//! The standard library has no list of them, so they are read where Linux shows them; what is not there (in some
//! sandboxes) is asked of the routing: the address that a packet to the internet would leave from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Documentation addresses (RFC 5737, RFC 3849): a UDP socket that is connected there sends nothing.
const SOMEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// The addresses that mail is taken at, without loopback. Those that come to a machine later are not seen.
pub(crate) fn own_addresses(listen: &[SocketAddr]) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = listen.iter().map(|address| address.ip().to_canonical()).collect();
    if all.iter().any(IpAddr::is_unspecified) {
        all.extend(of_this_machine());
    }
    all.retain(|ip| !ip.is_unspecified() && !ip.is_loopback());
    all.sort_unstable();
    all.dedup();
    all
}

fn of_this_machine() -> Vec<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let ipv4 = local_ipv4(&read("/proc/net/fib_trie"));
    let ipv6 = local_ipv6(&read("/proc/net/if_inet6"));
    let outgoing = SOMEWHERE.into_iter().filter_map(outgoing_address);
    ipv4.into_iter().map(IpAddr::V4).chain(ipv6.into_iter().map(IpAddr::V6)).chain(outgoing).collect()
}

fn outgoing_address(to: &str) -> Option<IpAddr> {
    let from = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// From the routing tables as the kernel shows them: an address, and below it that it is the host's own.
fn local_ipv4(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut all = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("+-- ") {
            leaf = None;
        } else if line == "/32 host LOCAL" {
            all.extend(leaf);
        }
    }
    all
}

/// One line for each address, which is 32 hexadecimal digits.
fn local_ipv6(if_inet6: &str) -> Vec<Ipv6Addr> {
    let addresses = if_inet6.lines().filter_map(|line| line.split_whitespace().next());
    let digits = addresses.filter(|address| address.len() == 32);
    digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok()).map(Ipv6Addr::from_bits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB_TRIE: &str = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 198.51.100.0/24 2 0 2
        |-- 198.51.100.0
           /24 link UNICAST
        |-- 198.51.100.7
           /32 host LOCAL
        |-- 198.51.100.255
           /32 link BROADCAST
";

    #[test]
    fn the_kernels_tables_are_read() {
        let ours: Vec<Ipv4Addr> = vec!["127.0.0.1".parse().unwrap(), "198.51.100.7".parse().unwrap()];
        assert_eq!(local_ipv4(FIB_TRIE), ours);
        let if_inet6 = "20010db8000000000000000000000007 02 40 00 80     eth0\n\
            00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";
        let ours: Vec<Ipv6Addr> = vec!["2001:db8::7".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(local_ipv6(if_inet6), ours);
        assert!(local_ipv4("").is_empty() && local_ipv6("").is_empty());
    }

    #[test]
    fn a_listener_on_one_address_has_that_and_one_on_all_has_every_one_but_loopback() {
        let listen = |text: &str| own_addresses(&[text.parse().unwrap()]);
        assert_eq!(listen("198.51.100.7:25"), ["198.51.100.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(listen("127.0.0.1:25"), [] as [IpAddr; 0]);
        let mut expected = of_this_machine();
        expected.retain(|ip| !ip.is_loopback() && !ip.is_unspecified());
        for all in ["0.0.0.0:25", "[::]:25"] {
            let found = listen(all);
            assert!(expected.iter().all(|ip| found.contains(ip)) && found.len() <= expected.len());
            assert!(!found.iter().any(|ip| ip.is_loopback() || ip.is_unspecified()), "{found:?}");
        }
    }
}
