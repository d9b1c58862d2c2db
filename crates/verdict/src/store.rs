//! Where greylist state is kept.
//!
//! A store does one thing: carry out a whole step (look up, judge, write) atomically. What a step does is in
//! `steps`, and in `torwart_policy::greylist`; a store brings the table.

mod memory;
mod overflow;
mod redb;
mod redis;
mod steps;
mod value;

#[cfg(test)]
mod suite;

#[cfg(test)]
pub(crate) use self::redis::TestServer;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::watch;
use torwart_core::BoxFuture;
use torwart_policy::greylist::{Judged, Params};

use crate::clock::Clock;

pub use self::redb::{RedbOptions, RedbStore};
pub use self::redis::{CachedStore, InvalidRedisUrl, RedisOptions, RedisStore, RedisUrl};
pub use memory::{DEFAULT_MAX_RECORDS, MemoryStore};

/// A keyed hash. A triplet's last two bytes are of its client's hash: all triplets of one client share them, so that
/// a store can tell who fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

/// The end of a keyed hash that tells clients apart.
pub type Tag = [u8; 2];

/// One step: the recipients of one mail domain that arrived together, or were delivered together.
#[derive(Clone, Debug)]
pub struct Call {
    pub params: Params,
    /// How many names the client goes by: each recipient has so many triplets in a row.
    pub identities: usize,
    /// A short hash of the sender, for counting different ones.
    pub sender: u32,
    /// Whose call it is: the client's network, whatever it calls itself.
    pub client: Tag,
    /// Under the key that writes.
    pub current: KeySet,
    /// Under keys that are read only.
    pub older: Vec<KeySet>,
}

#[derive(Clone, Debug)]
pub struct KeySet {
    /// Of mail domain and sender: the records of one call share it, so they can share a cluster's slot.
    pub slot: Key,
    pub triplets: Vec<Key>,
    /// One for each identity; none for the null sender, which earns no trust.
    pub known: Vec<Key>,
    pub counters: Vec<Key>,
}

/// Trust that is lost: what is known and counted in these sets, one for each key that hides addresses. Their
/// triplets stay.
#[derive(Clone, Debug)]
pub struct Revocation {
    pub sets: Vec<KeySet>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Triplets and known senders.
    pub records: u64,
    /// Clients with good deliveries.
    pub counters: u64,
}

/// Keeps greylist records. Each call is one atomic step: of two that touch the same records, the second sees all
/// that the first wrote. The store's own clock judges.
///
/// Errors mean that nothing is known of the step's outcome. The caller sets the time limit, and may drop the
/// future at any point; the step may then still happen.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// As in `memory`, `redb` or `redis`.
    fn kind(&self) -> &'static str;

    /// Whether records outlive the process.
    fn is_persistent(&self) -> bool;

    /// Judges the recipients of one mail domain: one answer for each, in order. The null sender's pass is lent to
    /// the caller, until it is delivered or given back or nothing is heard for [`LEASE`] seconds.
    ///
    /// A first try that had to be dropped is not new again: its retry passes with `StoreFailure`.
    ///
    /// [`LEASE`]: torwart_policy::greylist::LEASE
    fn check(&self, call: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>>;

    /// Remembers that the recipients' triplets were delivered (the null sender's: consumes them) and, with
    /// `trust`, that sender and client are good.
    fn deliver(&self, call: Call, trust: bool) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The delivery failed: the null sender's pass is good for its retry.
    fn give_back(&self, call: Call) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Takes back what a sender and its client have earned.
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The key that is kept in the store itself; `fresh` becomes it if there is none yet.
    fn secret(&self, fresh: [u8; 32]) -> BoxFuture<'_, Result<[u8; 32], StoreError>>;

    /// Forgets some of what has expired, and says how many records that were. Stores do so by themselves too.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, StoreError>>;

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>>;

    /// What is wrong with the store although it answers; told once.
    fn take_fault(&self) -> Option<StoreError> {
        None
    }

    /// For a store that others share and that may lose what it holds while we run: a number that changes whenever
    /// that may have happened (each new connection). None for a store that is this process's own.
    fn connects(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Resolves once every server of the store is connected; for a store that is this process's own, at once.
    fn connected(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store did not answer within its time limit")]
    TimedOut,
    #[error("the store has too much to do")]
    Busy,
    #[error("the store has been closed")]
    Closed,
    #[error("the store could not read or write: {0}")]
    Io(Arc<str>),
    #[error("{0}")]
    Unusable(Arc<str>),
    #[error(
        "the store's file is no longer where it was opened: what is written now is lost with this process"
    )]
    FileGone,
    #[error("no connection to the store: {0}")]
    Disconnected(Arc<str>),
    #[error("the store has failed several times in a row and is not asked for a while")]
    BreakerOpen,
    #[error("the store takes no writes: it is a replica")]
    ReadOnly,
    #[error("the store has no memory left")]
    OutOfMemory,
    #[error("the store is still loading what it saved")]
    Loading,
    #[error("the store's cluster is moving these records")]
    Moved,
    #[error("the store did not keep a script that it was given")]
    NoScript,
    #[error("the store refuses the user, the password or the command: {0}")]
    Auth(Arc<str>),
    #[error("a part of the store's cluster is down: {0}")]
    ClusterDown(Arc<str>),
}

/// What `--store` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSpec {
    Memory,
    Redb(PathBuf),
    Redis(RedisUrl),
}

/// No variant repeats what was written: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStoreSpec {
    #[error("redb: names no file; write redb:/path/to/greylist.redb")]
    NoPath,
    #[error(transparent)]
    Redis(#[from] InvalidRedisUrl),
    #[error("is no store; write memory, redb:PATH or redis://HOST:6379")]
    Unknown,
}

/// Opens what `--store` names. A file is created if it is not there, readable by its owner only.
///
/// A store on a server connects in the background, and so must be opened within a tokio runtime; whether its server
/// is there plays no part. Its passes are cached in this process (see [`CachedStore`]).
pub fn open_store(
    spec: &StoreSpec,
    clock: Arc<dyn Clock>,
    redis: &RedisOptions,
) -> Result<Arc<dyn Store>, StoreError> {
    match spec {
        StoreSpec::Memory => Ok(Arc::new(MemoryStore::new(DEFAULT_MAX_RECORDS, clock))),
        StoreSpec::Redb(path) => Ok(Arc::new(RedbStore::open(path, clock, RedbOptions::default())?)),
        StoreSpec::Redis(url) => {
            let store = RedisStore::open(url.clone(), redis)?;
            Ok(Arc::new(CachedStore::new(Arc::new(store), clock)))
        }
    }
}

// === impl Key ===

impl Key {
    /// A triplet's: of the client identity that it is written under.
    pub(crate) fn tag(&self) -> Tag {
        let [.., first, last] = self.0;
        [first, last]
    }
}

// === impl StoreError ===

impl StoreError {
    /// The label values of `torwart_store_failures_total{kind}`.
    pub const KINDS: [&'static str; 15] = [
        "timeout",
        "busy",
        "closed",
        "io",
        "unusable",
        "file_gone",
        "disconnected",
        "breaker_open",
        "readonly",
        "oom",
        "loading",
        "moved",
        "noscript",
        "auth",
        "cluster_down",
    ];

    pub fn kind(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::Io(_) => "io",
            Self::Unusable(_) => "unusable",
            Self::FileGone => "file_gone",
            Self::Disconnected(_) => "disconnected",
            Self::BreakerOpen => "breaker_open",
            Self::ReadOnly => "readonly",
            Self::OutOfMemory => "oom",
            Self::Loading => "loading",
            Self::Moved => "moved",
            Self::NoScript => "noscript",
            Self::Auth(_) => "auth",
            Self::ClusterDown(_) => "cluster_down",
        }
    }
}

// === impl StoreSpec ===

impl FromStr for StoreSpec {
    type Err = InvalidStoreSpec;

    fn from_str(text: &str) -> Result<Self, InvalidStoreSpec> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("redb", "")) => Err(InvalidStoreSpec::NoPath),
            Some(("redb", path)) => Ok(Self::Redb(path.into())),
            Some((scheme, _)) if scheme.starts_with("redis") => Ok(Self::Redis(text.parse()?)),
            _ => Err(InvalidStoreSpec::Unknown),
        }
    }
}

impl fmt::Display for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Redb(path) => write!(f, "redb:{}", path.display()),
            Self::Redis(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_its_scheme_and_shown_without_a_password() {
        for (text, shown) in [
            ("memory", "memory"),
            ("redb:/var/lib/torwart/greylist.redb", "redb:/var/lib/torwart/greylist.redb"),
            ("redis://cache.example:6379", "redis://cache.example:6379"),
        ] {
            assert_eq!(text.parse::<StoreSpec>().unwrap().to_string(), shown);
        }
        let secret = "redis://anna:hunter2@cache.example".parse::<StoreSpec>().unwrap();
        assert!(!format!("{secret} {secret:?}").contains("hunter2"), "{secret:?}");
        for text in
            ["", "memory:", "redb:", "redis", "redis:hunter2", "rediss+ssh://hunter2@x", "mysql://hunter2"]
        {
            let error = text.parse::<StoreSpec>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error:?}");
        }
    }

    #[test]
    fn every_kind_of_failure_is_counted_by_its_own_name() {
        let text = || Arc::from("x");
        let all = [
            StoreError::TimedOut,
            StoreError::Busy,
            StoreError::Closed,
            StoreError::Io(text()),
            StoreError::Unusable(text()),
            StoreError::FileGone,
            StoreError::Disconnected(text()),
            StoreError::BreakerOpen,
            StoreError::ReadOnly,
            StoreError::OutOfMemory,
            StoreError::Loading,
            StoreError::Moved,
            StoreError::NoScript,
            StoreError::Auth(text()),
            StoreError::ClusterDown(text()),
        ];
        assert_eq!(all.map(|error| error.kind()), StoreError::KINDS);
    }
}
