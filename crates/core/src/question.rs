//! What the edge knows and sends along: every question carries the session so far, so any replica can answer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::Id;

/// The sender's side of one SMTP session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The id of the session; its transactions have ids of their own.
    pub session: Id,
    /// The client's address, from the PROXY header where there was one. IPv4-mapped IPv6 is IPv4
    /// (see [`canonical_ip`]).
    pub address: SocketAddr,
    /// The argument of EHLO or HELO as it was given.
    pub helo: Option<Arc<str>>,
    /// What STARTTLS agreed on, if it was used.
    pub tls: Option<TlsFacts>,
    /// It spoke before it was greeted (RFC 5321 section 4.3.1 has it wait).
    pub early_talker: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// As in `TLSv1.3`.
    pub version: Arc<str>,
    /// As in `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Arc<str>,
}

/// An address as the client wrote it, byte for byte: a quoted local part keeps its quotes, the domain its case.
/// The source route, if there was one, is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    pub local: Box<str>,
    /// A domain name or an address literal in brackets; empty only for the bare `<Postmaster>`
    /// (RFC 5321 section 4.5.1).
    pub domain: Box<str>,
}

/// What MAIL said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `None` is the null sender `<>`.
    pub sender: Option<Mailbox>,
    /// `SIZE=` (RFC 1870), in bytes.
    pub declared_size: Option<u64>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit: bool,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
}

/// Asked before the banner, unless the last answer said that connections need no asking.
#[derive(Clone, Debug)]
pub struct ConnectionQuestion {
    pub peer: Arc<Peer>,
}

/// All recipients that arrived together.
#[derive(Clone, Debug)]
pub struct RecipientsQuestion {
    pub peer: Arc<Peer>,
    pub transaction: Id,
    pub envelope: Arc<Envelope>,
    /// In the order of their RCPT commands, never empty.
    pub recipients: Vec<Mailbox>,
    /// How many recipients of this transaction were accepted before these.
    pub accepted_before: u32,
}

// === impl Mailbox ===

impl Mailbox {
    pub fn new(local: impl Into<Box<str>>, domain: impl Into<Box<str>>) -> Self {
        Self { local: local.into(), domain: domain.into() }
    }

    /// The bare `<Postmaster>`, which names no domain.
    pub fn is_bare_postmaster(&self) -> bool {
        self.domain.is_empty() && self.local.eq_ignore_ascii_case("postmaster")
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.local)?;
        if self.domain.is_empty() {
            return Ok(());
        }
        f.write_str("@")?;
        f.write_str(&self.domain)
    }
}

/// IPv4-mapped IPv6 (`::ffff:192.0.2.1`) is IPv4: one client has one address, however the socket shows it.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert_eq!(canonical_ip("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(canonical_ip("2001:db8::1".parse().unwrap()), "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_mailbox_is_shown_as_it_was_written() {
        assert_eq!(Mailbox::new("\"a b\"", "Example.ORG").to_string(), "\"a b\"@Example.ORG");
        assert_eq!(Mailbox::new("Postmaster", "").to_string(), "Postmaster");
    }
}
