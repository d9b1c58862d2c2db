//! Resolvers that anybody may use. Lists refuse them, since they can't tell who asks: mail is then judged without the
//! list, or, with lists that answer in a wrong way, refused.

use std::net::IpAddr;

/// As their operators name them.
const KNOWN: [(&str, &[&str]); 13] = [
    ("Google", &["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]),
    (
        "Cloudflare",
        &[
            "1.1.1.1",
            "1.0.0.1",
            "1.1.1.2",
            "1.0.0.2",
            "1.1.1.3",
            "1.0.0.3",
            "2606:4700:4700::1111",
            "2606:4700:4700::1001",
            "2606:4700:4700::1112",
            "2606:4700:4700::1002",
            "2606:4700:4700::1113",
            "2606:4700:4700::1003",
            "2606:4700:4700::64",
            "2606:4700:4700::6400",
        ],
    ),
    (
        "Quad9",
        &[
            "9.9.9.9",
            "149.112.112.112",
            "9.9.9.10",
            "149.112.112.10",
            "9.9.9.11",
            "149.112.112.11",
            "2620:fe::fe",
            "2620:fe::9",
            "2620:fe::10",
            "2620:fe::fe:10",
            "2620:fe::11",
            "2620:fe::fe:11",
        ],
    ),
    (
        "OpenDNS",
        &[
            "208.67.222.222",
            "208.67.220.220",
            "208.67.222.220",
            "208.67.220.222",
            "208.67.222.123",
            "208.67.220.123",
            "2620:119:35::35",
            "2620:119:53::53",
        ],
    ),
    (
        "AdGuard",
        &[
            "94.140.14.14",
            "94.140.15.15",
            "94.140.14.15",
            "94.140.15.16",
            "94.140.14.140",
            "94.140.14.141",
            "2a10:50c0::ad1:ff",
            "2a10:50c0::ad2:ff",
            "2a10:50c0::1:ff",
            "2a10:50c0::2:ff",
        ],
    ),
    ("Lumen", &["4.2.2.1", "4.2.2.2", "4.2.2.3", "4.2.2.4", "4.2.2.5", "4.2.2.6"]),
    ("Verisign", &["64.6.64.6", "64.6.65.6", "2620:74:1b::1:1", "2620:74:1c::2:2"]),
    (
        "Yandex",
        &["77.88.8.8", "77.88.8.1", "77.88.8.88", "77.88.8.2", "2a02:6b8::feed:ff", "2a02:6b8:0:1::feed:ff"],
    ),
    ("CleanBrowsing", &["185.228.168.9", "185.228.169.9", "185.228.168.168", "185.228.169.168"]),
    ("Control D", &["76.76.2.0", "76.76.10.0", "2606:1a40::", "2606:1a40:1::"]),
    ("DNS.SB", &["185.222.222.222", "45.11.45.11", "2a09::", "2a11::"]),
    ("DNS4EU", &["86.54.11.100", "86.54.11.200", "2a13:1001::86:54:11:100", "2a13:1001::86:54:11:200"]),
    ("AliDNS", &["223.5.5.5", "223.6.6.6", "2400:3200::1", "2400:3200:baba::1"]),
];

/// Whose resolver this is, if anybody may use it.
pub(super) fn public_resolver(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    let is_there = |there: &&str| there.parse() == Ok(address);
    let known = KNOWN.iter().find(|(_, addresses)| addresses.iter().any(is_there));
    known.map(|(operator, _)| *operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_resolvers_are_known_by_their_addresses() {
        for (address, wanted) in [
            ("8.8.8.8", Some("Google")),
            ("::ffff:8.8.8.8", Some("Google")),
            ("1.1.1.1", Some("Cloudflare")),
            ("9.9.9.9", Some("Quad9")),
            ("2620:fe:0:0:0:0:0:fe", Some("Quad9")),
            ("2001:4860:4860:0:0:0:0:8888", Some("Google")),
            ("8.8.8.9", None),
            ("127.0.0.53", None),
            ("10.96.0.10", None),
        ] {
            let found = public_resolver(address.parse().unwrap());
            assert_eq!(found, wanted, "{address}");
        }
    }

    #[test]
    fn every_address_of_the_table_is_one_and_stands_there_once() {
        let all: Vec<IpAddr> =
            KNOWN.iter().flat_map(|(_, there)| there.iter()).map(|text| text.parse().unwrap()).collect();
        let once: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(once.len(), all.len());
    }
}
