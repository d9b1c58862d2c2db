//! What several messages share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use torwart_core as core;

use super::Malformed;
use crate::v1;

/// Recipients in one request: as many as one transaction may have (RFC 5321 section 4.5.3.1.8 asks for 100).
pub const MOST_RECIPIENTS: usize = 1000;

/// Octets of any one text that a client wrote. SMTP's own limits are below it (1000 for a path, 255 for HELO), so it
/// only bounds what a broken peer can make us keep.
pub const LONGEST_TEXT: usize = 4096;

// === to the wire ===

pub(super) fn id(id: core::Id) -> Vec<u8> {
    id.as_u128().to_be_bytes().to_vec()
}

pub(super) fn peer(peer: &core::Peer) -> v1::Peer {
    let core::Peer { session, address, helo, tls, early_talker } = peer;
    v1::Peer {
        session_id: id(*session),
        address: match core::canonical_ip(address.ip()) {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        },
        port: address.port().into(),
        helo: text(helo.as_ref()),
        tls: tls.as_ref().map(|core::TlsFacts { version, cipher }| v1::TlsFacts {
            version: version.as_ref().to_owned(),
            cipher: cipher.as_ref().to_owned(),
        }),
        early_talker: *early_talker,
    }
}

pub(super) fn envelope(envelope: &core::Envelope) -> v1::Envelope {
    let core::Envelope { sender, declared_size, eight_bit, smtputf8 } = envelope;
    v1::Envelope {
        sender: sender.as_ref().map(mailbox),
        declared_size: *declared_size,
        eight_bit: *eight_bit,
        smtputf8: *smtputf8,
    }
}

pub(super) fn mailbox(mailbox: &core::Mailbox) -> v1::Mailbox {
    let core::Mailbox { local, domain } = mailbox;
    v1::Mailbox { local: local.as_ref().to_owned(), domain: domain.as_ref().to_owned() }
}

pub(super) fn text(text: Option<&Arc<str>>) -> Option<String> {
    text.map(|text| text.as_ref().to_owned())
}

// === from the wire ===

pub(super) fn to_id(bytes: &[u8], field: &'static str) -> Result<core::Id, Malformed> {
    <[u8; 16]>::try_from(bytes)
        .map(|bytes| core::Id::from_u128(u128::from_be_bytes(bytes)))
        .map_err(|_| Malformed::new(field, "an id has 16 bytes"))
}

pub(super) fn to_peer(peer: Option<v1::Peer>) -> Result<Arc<core::Peer>, Malformed> {
    let peer = peer.ok_or(Malformed::new("peer", "it is missing"))?;
    let v1::Peer { session_id, address, port, helo, tls, early_talker } = peer;
    let session = to_id(&session_id, "peer.session_id")?;
    let ip = match *address.as_slice() {
        [a, b, c, d] => IpAddr::from([a, b, c, d]),
        ref six => <[u8; 16]>::try_from(six)
            .map(IpAddr::from)
            .map_err(|_| Malformed::new("peer.address", "an address has 4 or 16 bytes"))?,
    };
    let port = u16::try_from(port).map_err(|_| Malformed::new("peer.port", "it is over 65535"))?;
    let tls = match tls {
        Some(v1::TlsFacts { version, cipher }) => Some(core::TlsFacts {
            version: to_text(version, "peer.tls.version")?,
            cipher: to_text(cipher, "peer.tls.cipher")?,
        }),
        None => None,
    };
    Ok(Arc::new(core::Peer {
        session,
        address: SocketAddr::new(core::canonical_ip(ip), port),
        helo: helo.map(|helo| to_text(helo, "peer.helo")).transpose()?,
        tls,
        early_talker,
    }))
}

pub(super) fn to_envelope(envelope: Option<v1::Envelope>) -> Result<Arc<core::Envelope>, Malformed> {
    let envelope = envelope.ok_or(Malformed::new("envelope", "it is missing"))?;
    let v1::Envelope { sender, declared_size, eight_bit, smtputf8 } = envelope;
    Ok(Arc::new(core::Envelope {
        sender: sender.map(|sender| to_mailbox(sender, "envelope.sender")).transpose()?,
        declared_size,
        eight_bit,
        smtputf8,
    }))
}

pub(super) fn to_recipients(recipients: Vec<v1::Mailbox>) -> Result<Vec<core::Mailbox>, Malformed> {
    if recipients.len() > MOST_RECIPIENTS {
        return Err(Malformed::new("recipients", "there are more than 1000"));
    }
    recipients.into_iter().map(|recipient| to_mailbox(recipient, "recipients")).collect()
}

/// Refuses what would end the path that it is written into: control characters, and outside of quotes also spaces and
/// angle brackets. More of its grammar is not checked: it was when the client wrote it.
pub(super) fn to_mailbox(mailbox: v1::Mailbox, field: &'static str) -> Result<core::Mailbox, Malformed> {
    let v1::Mailbox { local, domain } = mailbox;
    if local.len() > LONGEST_TEXT || domain.len() > LONGEST_TEXT {
        return Err(Malformed::new(field, "a mailbox is too long"));
    }
    if local.is_empty() {
        return Err(Malformed::new(field, "a mailbox has no local part"));
    }
    let quoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let is_local = quoted.map_or_else(|| local.chars().all(is_bare), is_quoted);
    if !is_local || !domain.chars().all(is_bare) {
        return Err(Malformed::new(field, "a mailbox holds what no path can hold"));
    }
    let mailbox = core::Mailbox::new(local, domain);
    if mailbox.domain.is_empty() && !mailbox.is_bare_postmaster() {
        return Err(Malformed::new(field, "a mailbox has no domain"));
    }
    Ok(mailbox)
}

fn is_bare(c: char) -> bool {
    !c.is_ascii_control() && !matches!(c, ' ' | '<' | '>' | '"')
}

/// RFC 5321 section 4.1.2: within quotes, a quote or a backslash stands behind a backslash.
fn is_quoted(text: &str) -> bool {
    let mut is_escaped = false;
    for c in text.chars() {
        if c.is_ascii_control() || (c == '"' && !is_escaped) {
            return false;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    !is_escaped
}

pub(super) fn to_text(text: String, field: &'static str) -> Result<Arc<str>, Malformed> {
    if text.len() > LONGEST_TEXT {
        return Err(Malformed::new(field, "it is too long"));
    }
    Ok(text.into())
}
