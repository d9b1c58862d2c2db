//! `clientIdentity`: how an upstream learns who the client is, so that its own log, limits and filters see the sender
//! and not the gateway.
//!
//! - XCLIENT and XFORWARD are Postfix's (its XCLIENT_README and XFORWARD_README). Each is sent in one command, alone and
//!   before MAIL, and names only what the upstream offers to take.
//! - PROXY is HAProxy's `proxy-protocol.txt`, version 2, before everything else on the connection.
//!
//! Where the upstream does not take it, it gets no mail: its rules would be applied to the wrong client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ppp::v2;
use torwart_core::ClientIdentity;
use torwart_smtp::Client;

/// The client as it is shown to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFacts {
    pub address: SocketAddr,
    /// What it said in EHLO or HELO.
    pub helo: Option<Arc<str>>,
    /// It said EHLO.
    pub esmtp: bool,
}

type Attribute = (&'static str, String);

/// Postfix's word for what is not known, in both of its commands.
const UNAVAILABLE: &str = "[UNAVAILABLE]";
/// Postfix refuses a longer HELO (its VALID_HOSTNAME_LEN; RFC 5321 section 4.5.3.1.2). A command with it, encoded, must
/// stay within the 512 characters that the README allows; the rest takes less than 150.
const LONGEST_HELO: usize = 255;
const LONGEST_ENCODED_HELO: usize = 350;

/// Queues the command that tells who the client is. `Err`: the upstream does not offer to take it.
pub(super) fn introduce(
    client: &mut Client,
    identity: ClientIdentity,
    facts: &ClientFacts,
) -> Result<(), &'static str> {
    match identity {
        ClientIdentity::None | ClientIdentity::ProxyV2 => {}
        ClientIdentity::Xclient => {
            let offered = client.capabilities().xclient.clone().ok_or("XCLIENT is not offered")?;
            let attributes = chosen(facts, &offered).ok_or("XCLIENT is offered without ADDR")?;
            client.xclient(&borrowed(&attributes));
            // The session starts anew, as the client's: its EHLO is what the upstream goes by.
            if let Some(helo) = facts.sayable_helo() {
                client.introduce_as(Arc::clone(helo));
            }
        }
        ClientIdentity::Xforward => {
            let offered = client.capabilities().xforward.clone().ok_or("XFORWARD is not offered")?;
            let attributes = chosen(facts, &offered).ok_or("XFORWARD is offered without ADDR")?;
            client.xforward(&borrowed(&attributes));
        }
    }
    Ok(())
}

/// The attributes that the upstream takes; `None` if the address is not among them.
fn chosen(facts: &ClientFacts, offered: &[String]) -> Option<Vec<Attribute>> {
    let taken = |name: &str| offered.iter().any(|word| word == name);
    taken("ADDR").then(|| facts.attributes().into_iter().filter(|(name, _)| taken(name)).collect())
}

fn borrowed(attributes: &[Attribute]) -> Vec<(&str, &str)> {
    attributes.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// What goes before everything else, where `identity` is the PROXY protocol: always the client (PROXY), never
/// ourselves (LOCAL). An upstream of the other address family is shown a loopback address as the one that the client
/// came to: the header has one family for both.
pub(super) fn proxy_header(
    identity: ClientIdentity,
    facts: &ClientFacts,
    upstream: SocketAddr,
) -> Option<Vec<u8>> {
    if identity != ClientIdentity::ProxyV2 {
        return None;
    }
    let source = SocketAddr::new(facts.address.ip().to_canonical(), facts.address.port());
    let destination = match (source.ip(), upstream.ip().to_canonical()) {
        (IpAddr::V4(_), IpAddr::V6(_)) => Ipv4Addr::LOCALHOST.into(),
        (IpAddr::V6(_), IpAddr::V4(_)) => Ipv6Addr::LOCALHOST.into(),
        (_, same) => same,
    };
    let addresses = v2::Addresses::from((source, SocketAddr::new(destination, upstream.port())));
    let version = v2::Version::Two | v2::Command::Proxy;
    // It fails for headers of more than 64 KiB only.
    v2::Builder::with_addresses(version, v2::Protocol::Stream, addresses).build().ok()
}

// === impl ClientFacts ===

impl ClientFacts {
    /// Reverse DNS is the verdict's, and is not asked for this.
    fn attributes(&self) -> [Attribute; 5] {
        let address = match self.address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("IPV6:{ip}"),
        };
        [
            ("NAME", UNAVAILABLE.to_owned()),
            ("ADDR", address),
            ("PORT", self.address.port().to_string()),
            ("PROTO", if self.esmtp { "ESMTP" } else { "SMTP" }.to_owned()),
            ("HELO", self.sayable_helo().map_or(UNAVAILABLE, |helo| helo).to_owned()),
        ]
    }

    /// What it said, if that can be said again.
    fn sayable_helo(&self) -> Option<&Arc<str>> {
        let sayable = |helo: &&Arc<str>| {
            let encoded = helo.len() + 2 * helo.bytes().filter(|byte| matches!(byte, b'+' | b'=')).count();
            (1..=LONGEST_HELO).contains(&helo.len())
                && encoded <= LONGEST_ENCODED_HELO
                && helo.bytes().all(|byte| byte.is_ascii_graphic())
        };
        self.helo.as_ref().filter(sayable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use torwart_smtp::{ClientConfig, ClientEvent, Dialect, StartTlsMode};

    use crate::proxy::{Decoded, Source, decode};

    fn mk_facts(address: &str, helo: Option<&str>) -> ClientFacts {
        ClientFacts { address: address.parse().unwrap(), helo: helo.map(Arc::from), esmtp: true }
    }

    /// A client to whom this was offered.
    fn mk_client(offer: &str) -> Client {
        let config = ClientConfig {
            hostname: "gateway.example".into(),
            dialect: Dialect::Smtp,
            start_tls: StartTlsMode::Never,
        };
        let mut client = Client::new(config);
        let mut hear = |text: &str| {
            let mut input = text.as_bytes();
            let mut last = None;
            while !input.is_empty() {
                let (taken, event) = client.receive(input).unwrap();
                input = &input[taken..];
                last = event;
            }
            last
        };
        hear("220 up\r\n");
        assert_eq!(hear(&format!("250-up\r\n250 {offer}\r\n")), Some(ClientEvent::Ready));
        client.output().clear();
        client
    }

    fn said(offer: &str, identity: ClientIdentity, facts: &ClientFacts) -> Result<String, &'static str> {
        let mut client = mk_client(offer);
        introduce(&mut client, identity, facts)?;
        Ok(String::from_utf8(std::mem::take(client.output())).unwrap())
    }

    #[test]
    fn only_what_is_offered_is_named() {
        use ClientIdentity::{Xclient, Xforward};
        let facts = mk_facts("192.0.2.1:4321", Some("client.example"));
        let rows = [
            (
                "XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT",
                Xclient,
                Ok("XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=4321 PROTO=ESMTP HELO=client.example\r\n"),
            ),
            ("XCLIENT addr", Xclient, Ok("XCLIENT ADDR=192.0.2.1\r\n")),
            ("XCLIENT NAME", Xclient, Err("XCLIENT is offered without ADDR")),
            ("XFORWARD NAME ADDR", Xclient, Err("XCLIENT is not offered")),
            (
                "XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT",
                Xforward,
                Ok(
                    "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=4321 PROTO=ESMTP HELO=client.example\r\n",
                ),
            ),
            ("XFORWARD NAME", Xforward, Err("XFORWARD is offered without ADDR")),
            ("XCLIENT ADDR", Xforward, Err("XFORWARD is not offered")),
        ];
        for (offer, identity, wanted) in rows {
            assert_eq!(said(offer, identity, &facts), wanted.map(str::to_owned), "{offer} {identity:?}");
        }
        assert_eq!(said("XCLIENT ADDR", ClientIdentity::None, &facts).unwrap(), "");
    }

    #[test]
    fn an_ipv6_address_has_its_prefix_and_an_unsayable_helo_is_unavailable() {
        let offer = "XCLIENT ADDR HELO PROTO";
        let long = "a".repeat(LONGEST_HELO + 1);
        for (address, helo, wanted) in [
            (
                "[2001:db8::1]:25",
                Some("[IPv6:2001:db8::1]"),
                "ADDR=IPV6:2001:db8::1 PROTO=ESMTP HELO=[IPv6:2001:db8::1]",
            ),
            ("[::ffff:192.0.2.1]:25", None, "ADDR=192.0.2.1 PROTO=ESMTP HELO=[UNAVAILABLE]"),
            ("192.0.2.1:25", Some("a b"), "ADDR=192.0.2.1 PROTO=ESMTP HELO=[UNAVAILABLE]"),
            ("192.0.2.1:25", Some(&long), "ADDR=192.0.2.1 PROTO=ESMTP HELO=[UNAVAILABLE]"),
            ("192.0.2.1:25", Some("a+b=c"), "ADDR=192.0.2.1 PROTO=ESMTP HELO=a+2Bb+3Dc"),
        ] {
            let said = said(offer, ClientIdentity::Xclient, &mk_facts(address, helo)).unwrap();
            assert_eq!(said, format!("XCLIENT {wanted}\r\n"));
        }
        let old = ClientFacts { esmtp: false, ..mk_facts("192.0.2.1:25", Some("a")) };
        assert_eq!(
            said("XCLIENT ADDR PROTO", ClientIdentity::Xclient, &old).unwrap(),
            "XCLIENT ADDR=192.0.2.1 PROTO=SMTP\r\n"
        );
    }

    proptest! {
        /// XCLIENT_README: at most 512 characters, and one command whatever the client said.
        #[test]
        fn a_command_is_one_line_of_bounded_length(helo in "\\PC{0,300}|[+=]{200,255}|(?s).{0,40}", v6: bool) {
            let facts = mk_facts(if v6 { "[2001:db8:1111:2222:3333:4444:5555:6666]:65535" } else { "192.0.2.1:1" }, Some(&helo));
            let offer = "XCLIENT NAME ADDR PORT PROTO HELO";
            let said = said(offer, ClientIdentity::Xclient, &facts).unwrap();
            prop_assert!(said.len() <= 512 && said.ends_with("\r\n"), "{said:?}");
            prop_assert!(said.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{said:?}");
            prop_assert_eq!(said.split(' ').count(), 6);
        }

        /// What our own decoder, tested against HAProxy's, makes of it.
        #[test]
        fn a_proxy_header_names_the_client(client: SocketAddr, upstream: SocketAddr) {
            let facts = ClientFacts { address: client, helo: None, esmtp: true };
            let header = proxy_header(ClientIdentity::ProxyV2, &facts, upstream).unwrap();
            let source = SocketAddr::new(client.ip().to_canonical(), client.port());
            let wanted = Decoded::Complete { length: header.len(), source: Source::Client(source) };
            prop_assert_eq!(decode(&header), Ok(wanted));
            prop_assert_eq!(proxy_header(ClientIdentity::Xclient, &facts, upstream), None);
        }
    }
}
