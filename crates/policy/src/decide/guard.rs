//! The client address guard: a gateway that sees only its load balancer must not block the world, and must not
//! trust it either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether no sender on the internet can have this address: private (RFC 1918, RFC 4193), shared by a carrier's
/// NAT (RFC 6598), link-local (RFC 3927, RFC 4291), unspecified, or our own machine's. Loopback is excepted:
/// a gateway on one machine is tried out from there.
///
/// Checks of the address neither use nor feed on such a client, unless an IP range names it.
pub fn is_suspect(client: IpAddr, own_addresses: &[IpAddr]) -> bool {
    let client = client.to_canonical();
    if client.is_loopback() {
        return false;
    }
    let unnatural = match client {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_unspecified() || is_carrier_nat(ip),
        IpAddr::V6(ip) => is_unique_local(ip) || is_unicast_link_local(ip) || ip.is_unspecified(),
    };
    unnatural || own_addresses.iter().any(|own| own.to_canonical() == client)
}

/// 100.64.0.0/10
fn is_carrier_nat(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0b1100_0000 == 64
}

/// fc00::/7
fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xfe00 == 0xfc00
}

/// fe80::/10
fn is_unicast_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_on_the_internet_are_senders() {
        let own = ["198.51.100.7".parse().unwrap()];
        for (address, suspect) in [
            ("192.0.2.1", false),
            ("8.8.8.8", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("9.255.255.255", false),
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("172.15.255.255", false),
            ("172.16.0.1", true),
            ("172.31.255.255", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("169.254.1.1", true),
            ("100.63.255.255", false),
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.128.0.1", false),
            ("0.0.0.0", true),
            ("fd00::1", true),
            ("fc00::1", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", false),
            ("2001:db8::1", false),
            ("198.51.100.7", true),
            ("::ffff:198.51.100.7", true),
            ("198.51.100.8", false),
        ] {
            assert_eq!(is_suspect(address.parse().unwrap(), &own), suspect, "{address}");
        }
    }
}
