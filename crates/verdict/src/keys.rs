//! Keyed hashes: no address can be read in a store, and none can be guessed without the key.
//!
//! ```text
//!    slot    = HMAC(key, "slot",    mail domain, sender)           one slot holds a call's records
//!    triplet = HMAC(key, "triplet", slot, client identity, recipient)
//!    known   = HMAC(key, "known",   slot, client identity)
//!    counter = HMAC(key, "counter", mail domain, client identity)
//!    client  = HMAC(key, "client",  client identity)          cut to 2 bytes: a tag
//! ```
//!
//! HMAC-SHA256 (RFC 2104) over length-prefixed fields, cut to 16 bytes. The last two bytes of a triplet are the
//! client's, so that a store can tell who fills it, and tell nothing else.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use ipnet::IpNet;
use sha2::Sha256;
use torwart_core::Mailbox;
use torwart_policy::decide::Facts;
use torwart_policy::decide::Group;
use torwart_policy::greylist::{Identity, normalise_sender};

use crate::store::{Call, Key, KeySet, Revocation, Tag};

/// The first key writes, all of them read: a key is changed by putting the new one in front.
#[derive(Clone)]
pub struct Keyring {
    first: Hmac<Sha256>,
    older: Vec<Hmac<Sha256>>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path}: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error(
        "{path}: holds {length} bytes; a store key is 16 to 4096 bytes, better 32 (such as `openssl rand -hex 32`)"
    )]
    Length { path: PathBuf, length: usize },
}

/// Shorter keys can be guessed.
const LEAST_KEY: usize = 16;
const LONGEST_KEY: usize = 4096;

/// A client counts for its network, as greylisting counts by default.
const PREFIX_IPV4: u8 = 24;
const PREFIX_IPV6: u8 = 64;

#[derive(Clone, Copy)]
enum Kind {
    Slot = 1,
    Triplet = 2,
    Known = 3,
    Counter = 4,
    Client = 5,
}

// === impl Keyring ===

impl Keyring {
    /// `key` may have any length; 32 random bytes are right.
    pub fn new(key: &[u8]) -> Self {
        Self { first: mac(key), older: Vec::new() }
    }

    pub(crate) fn of_keys<'a>(first: &[u8], older: impl Iterator<Item = &'a [u8]>) -> Self {
        Self { first: mac(first), older: older.map(mac).collect() }
    }

    /// Reads `--store-key-file`s, in order; white space at the end of a file does not count. None for no files.
    /// Every bad file is reported.
    pub fn from_files(paths: &[PathBuf]) -> Result<Option<Self>, Vec<KeyFileError>> {
        let mut macs = Vec::new();
        let mut errors = Vec::new();
        for path in paths {
            match read_key(path) {
                Ok(key) => macs.push(mac(&key)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut macs = macs.into_iter();
        Ok(macs.next().map(|first| Self { first, older: macs.collect() }))
    }

    /// The keys of one atomic step: all of `group`'s recipients, under all identities of the client.
    pub(crate) fn call(&self, facts: &Facts<'_>, group: &Group<'_>) -> Call {
        let sender = normalise_sender(facts.sender);
        let recipients: Vec<&Mailbox> =
            group.members.iter().filter_map(|index| facts.recipients.get(*index)).collect();
        let trust = facts.sender.is_some();
        let key_set =
            |mac| key_set(mac, group.target.pattern, &group.identities, &sender, &recipients, trust);
        let current = key_set(&self.first);
        let short_sender = current.slot.0.last_chunk().map_or(0, |chunk| u32::from_be_bytes(*chunk));
        Call {
            params: group.params,
            identities: group.identities.len(),
            sender: short_sender,
            client: self.client(facts.client),
            current,
            older: self.older.iter().map(key_set).collect(),
        }
    }

    /// Whether two rings write under the same key can be seen by what they make of one name.
    #[cfg(test)]
    pub(crate) fn name_of(&self, name: &str) -> Key {
        hash(&self.first, Kind::Slot, |mac| field(mac, name.as_bytes()))
    }

    /// How many keys are read.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        1 + self.older.len()
    }

    fn client(&self, ip: IpAddr) -> Tag {
        let network = client_network(ip);
        hash(&self.first, Kind::Client, |mac| identity_field(mac, &Identity::Network(network))).tag()
    }

    /// The keys of what a sender and its client have earned at one mail domain.
    pub(crate) fn revocation(&self, facts: &Facts<'_>, group: &Group<'_>) -> Revocation {
        let call = self.call(facts, group);
        Revocation { sets: std::iter::once(call.current).chain(call.older).collect() }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &(1 + self.older.len())).finish_non_exhaustive()
    }
}

/// Whose load a client is.
fn client_network(ip: IpAddr) -> IpNet {
    let ip = ip.to_canonical();
    let prefix = if ip.is_ipv4() { PREFIX_IPV4 } else { PREFIX_IPV6 };
    IpNet::new(ip, prefix).map_or_else(|_| ip.into(), |network| network.trunc())
}

fn key_set(
    key: &Hmac<Sha256>,
    domain: &str,
    identities: &[Identity],
    sender: &str,
    recipients: &[&Mailbox],
    trust: bool,
) -> KeySet {
    let slot = hash(key, Kind::Slot, |mac| {
        field(mac, domain.as_bytes());
        field(mac, sender.as_bytes());
    });
    let clients: Vec<Key> = identities
        .iter()
        .map(|identity| hash(key, Kind::Client, |mac| identity_field(mac, identity)))
        .collect();
    let mut triplets = Vec::with_capacity(recipients.len() * identities.len());
    for recipient in recipients {
        let local = recipient.local.to_lowercase();
        let host = recipient.domain.to_lowercase();
        triplets.extend(identities.iter().zip(&clients).map(|(identity, client)| {
            let triplet = hash(key, Kind::Triplet, |mac| {
                field(mac, &slot.0);
                identity_field(mac, identity);
                field(mac, local.as_bytes());
                field(mac, host.as_bytes());
            });
            tagged(triplet, client)
        }));
    }
    let mut known = Vec::new();
    let mut counters = Vec::new();
    if trust {
        known.extend(identities.iter().map(|identity| {
            hash(key, Kind::Known, |mac| {
                field(mac, &slot.0);
                identity_field(mac, identity);
            })
        }));
        counters.extend(identities.iter().map(|identity| {
            hash(key, Kind::Counter, |mac| {
                field(mac, domain.as_bytes());
                identity_field(mac, identity);
                if let Identity::ReverseDns(_, network) = identity {
                    // One host of a provider must not vouch for all of its customers.
                    network_field(mac, network);
                }
            })
        }));
    }
    KeySet { slot, triplets, known, counters }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length (RFC 2104 section 2); the error is there for other algorithms.
    Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

fn hash(key: &Hmac<Sha256>, kind: Kind, fields: impl FnOnce(&mut Hmac<Sha256>)) -> Key {
    let mut mac = key.clone();
    mac.update(&[kind as u8]);
    fields(&mut mac);
    let mut short = [0; 16];
    for (place, byte) in short.iter_mut().zip(mac.finalize().into_bytes()) {
        *place = byte;
    }
    Key(short)
}

fn tagged(Key(mut triplet): Key, client: &Key) -> Key {
    if let Some(place) = triplet.last_chunk_mut() {
        *place = client.tag();
    }
    Key(triplet)
}

fn field(mac: &mut Hmac<Sha256>, bytes: &[u8]) {
    mac.update(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    mac.update(bytes);
}

fn identity_field(mac: &mut Hmac<Sha256>, identity: &Identity) {
    match identity {
        Identity::Spf(domain) => {
            mac.update(b"s");
            field(mac, domain.as_bytes());
        }
        Identity::ReverseDns(domain, _) => {
            mac.update(b"r");
            field(mac, domain.as_bytes());
        }
        Identity::Helo(domain) => {
            mac.update(b"h");
            field(mac, domain.as_bytes());
        }
        Identity::Network(network) => {
            mac.update(b"n");
            network_field(mac, network);
        }
    }
}

fn network_field(mac: &mut Hmac<Sha256>, network: &IpNet) {
    match network.network() {
        IpAddr::V4(ip) => field(mac, &ip.octets()),
        IpAddr::V6(ip) => field(mac, &ip.octets()),
    }
    mac.update(&[network.prefix_len()]);
}

fn read_key(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    let mut key =
        std::fs::read(path).map_err(|error| KeyFileError::Unreadable { path: path.to_owned(), error })?;
    let length = key.trim_ascii_end().len();
    key.truncate(length);
    if !(LEAST_KEY..=LONGEST_KEY).contains(&length) {
        return Err(KeyFileError::Length { path: path.to_owned(), length });
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
