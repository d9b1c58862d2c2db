//! The key that hides addresses, where it is kept in the store itself.
//!
//! A store on a server may lose it with everything else: it is flushed, or restarted empty. Whoever comes first puts
//! a key there again, and that need not be ours; two processes with different keys would make each sender wait once
//! for each of them. So the store is asked again and again, with ours as the one to be kept, and what it says is
//! taken up.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use torwart_policy::greylist::LEAST_KEPT;

use super::StartError;
use crate::clock::Clock;
use crate::keys::Keyring;
use crate::metrics::{Metrics, StoreOp};
use crate::store::{Store, StoreError};

/// The keyring in force.
pub(super) struct StoreKeys {
    ring: Arc<ArcSwap<Keyring>>,
    asking: Option<JoinHandle<()>>,
}

/// Asks the store for its key.
struct Asking {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ring: Arc<ArcSwap<Keyring>>,
    keys: Keys,
    connects: watch::Receiver<u64>,
    has_answered: bool,
}

/// The store's keys that this process has seen.
#[derive(Debug)]
struct Keys {
    first: Secret,
    /// With the time (Unix seconds) until which they are read. The latest is first.
    older: Vec<(Secret, i64)>,
}

type Secret = [u8; 32];

/// A file that is just being opened, or repaired, may take so long for its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A server may be away for longer than anyone wants to wait. Then we begin with a key of our own: nothing is written
/// before there is a connection, and the store is asked as soon as there is one.
const SERVER_START_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit of one question, which nobody waits for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_secs(30);
/// After a question that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// More than are ever needed: each is a look-up more for every question.
const MOST_OLDER: usize = 4;
/// A sender that still waits has come again by then, in seconds.
const OLDER_KEPT: i64 = LEAST_KEPT as i64;

// === impl StoreKeys ===

impl StoreKeys {
    pub(super) fn fixed(ring: Keyring) -> Self {
        Self { ring: Arc::new(ArcSwap::from_pointee(ring)), asking: None }
    }

    /// The key that `store` holds, or a new one. For a store on a server ([`Store::connects`]) it is asked for from
    /// time to time, and what is found is taken up.
    pub(super) async fn in_store(
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let mut fresh = [0; 32];
        getrandom::fill(&mut fresh).map_err(StartError::Random)?;
        let _timer = metrics.time_store(StoreOp::Secret);
        if store.is_persistent() {
            tracing::warn!(
                store = store.kind(),
                "no --store-key-file: the key that hides addresses in the store is kept in the store itself"
            );
        }
        let Some(mut connects) = store.connects() else {
            let secret = timeout(START_TIMEOUT, store.secret(fresh)).await;
            return Ok(Self::fixed(Keyring::new(&secret.unwrap_or(Err(StoreError::TimedOut))?)));
        };
        let found = first_answer(store, fresh, &mut connects).await;
        let keys = Keys { first: found.unwrap_or(fresh), older: Vec::new() };
        let ring = Arc::new(ArcSwap::from_pointee(keys.ring()));
        let asking = Asking {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            ring: Arc::clone(&ring),
            keys,
            connects,
            has_answered: found.is_some(),
        };
        Ok(Self { ring, asking: Some(tokio::spawn(asking.run())) })
    }

    pub(super) fn current(&self) -> Guard<Arc<Keyring>> {
        self.ring.load()
    }
}

impl Drop for StoreKeys {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
    }
}

async fn first_answer(
    store: &Arc<dyn Store>,
    fresh: Secret,
    connects: &mut watch::Receiver<u64>,
) -> Option<Secret> {
    let deadline = Instant::now() + SERVER_START_TIMEOUT;
    loop {
        let error = match timeout_at(deadline, store.secret(fresh)).await {
            Ok(Ok(found)) => return Some(found),
            Ok(Err(error)) => error,
            Err(_) => StoreError::TimedOut,
        };
        let pause = deadline.min(Instant::now() + RETRY_INTERVAL);
        let _connected = timeout_at(pause, connects.changed()).await;
        if Instant::now() >= deadline {
            tracing::warn!(
                store = store.kind(),
                %error,
                "the store's own key could not be read yet: beginning with another"
            );
            return None;
        }
    }
}

// === impl Asking ===

impl Asking {
    async fn run(mut self) {
        loop {
            let pause = if self.has_answered { INTERVAL } else { RETRY_INTERVAL };
            if let Ok(Err(_)) = timeout(pause, self.connects.changed()).await {
                // There will be no further connection.
                return;
            }
            let answer = timeout(ANSWER_TIMEOUT, self.store.secret(self.keys.first)).await;
            self.has_answered = matches!(answer, Ok(Ok(_)));
            if let Ok(Ok(found)) = answer {
                self.take(found);
            }
        }
    }

    fn take(&mut self, found: Secret) {
        if found != self.keys.first {
            tracing::warn!(
                store = self.store.kind(),
                "the store holds another key than before, as after it was emptied: using it from now on"
            );
        }
        if self.keys.take(found, self.clock.now()) {
            self.ring.store(Arc::new(self.keys.ring()));
        }
    }
}

// === impl Keys ===

impl Keys {
    fn ring(&self) -> Keyring {
        Keyring::of_keys(&self.first, self.older.iter().map(|(key, _)| key.as_slice()))
    }

    /// Says whether anything has changed.
    fn take(&mut self, found: Secret, now: i64) -> bool {
        let before = self.older.len();
        self.older.retain(|(key, until)| *until > now && *key != found);
        if found == self.first {
            return self.older.len() != before;
        }
        let replaced = std::mem::replace(&mut self.first, found);
        self.older.insert(0, (replaced, now.saturating_add(OLDER_KEPT)));
        self.older.truncate(MOST_OLDER);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use prometheus::Registry;
    use torwart_tests::{PATIENCE, RedisServer};

    use super::*;
    use crate::clock::SystemClock;
    use crate::engine::{Engine, Options};
    use crate::store::{RedisOptions, RedisStore, TestServer};

    fn mk_options(store: RedisStore, key_files: Vec<PathBuf>) -> Options {
        Options {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            key_files,
            store_timeout: Duration::from_secs(10),
            own_addresses: Vec::new(),
        }
    }

    async fn mk_engine(store: RedisStore) -> Engine {
        Engine::start(mk_options(store, Vec::new()), &Registry::new()).await.unwrap()
    }

    /// What two engines write a record under.
    fn names(engine: &Engine) -> String {
        format!("{:?}", engine.keys.current().name_of("anything"))
    }

    /// Waits until the engine has another name for the same record.
    async fn renamed(engine: &Engine, before: &str) {
        let changed = async {
            while names(engine) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, changed).await.expect("another key");
    }

    #[tokio::test]
    async fn engines_whose_store_was_flushed_agree_again_on_one_key() {
        let server = TestServer::start(RedisServer::start());
        let one = mk_engine(server.only_store().await).await;
        let two = mk_engine(server.only_store().await).await;
        let before = names(&one);
        assert_eq!(before, names(&two));
        server.server.cli(&["FLUSHALL"]);
        let three = mk_engine(server.only_store().await).await;
        assert_ne!(before, names(&three));
        // Else they would ask within half a minute.
        server.server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        renamed(&one, &before).await;
        renamed(&two, &before).await;
        assert_eq!(names(&one), names(&three));
        assert_eq!(names(&two), names(&three));
        assert_eq!(one.keys.current().count(), 2, "what was written in between is read");
        assert_eq!(three.keys.current().count(), 1);
    }

    #[tokio::test]
    async fn an_engine_starts_without_its_server_and_takes_the_key_when_it_comes() {
        let mut server = TestServer::start(RedisServer::builder().persistent().start());
        let first = mk_engine(server.only_store().await).await;
        server.server.kill();
        let store = RedisStore::open(server.url(), &RedisOptions::default()).unwrap();
        let late = mk_engine(store).await;
        let before = names(&late);
        assert_ne!(before, names(&first));
        server.server.start_again();
        renamed(&late, &before).await;
        assert_eq!(names(&late), names(&first));
    }

    #[tokio::test]
    async fn with_key_files_the_store_is_not_asked() {
        let server = TestServer::start(RedisServer::start());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef0123456789abcdef").unwrap();
        let options = mk_options(server.only_store().await, vec![file.path().to_owned()]);
        let engine = Engine::start(options, &Registry::new()).await.unwrap();
        assert!(engine.keys.asking.is_none());
        assert_eq!(server.server.cli(&["EXISTS", "tw:key"]).trim(), "0");
    }

    #[test]
    fn what_the_store_holds_is_first_and_what_it_held_is_read_for_some_days() {
        let mut keys = Keys { first: [1; 32], older: Vec::new() };
        let older = |keys: &Keys| keys.older.iter().map(|(key, _)| key[0]).collect::<Vec<_>>();
        assert!(!keys.take([1; 32], 100));
        assert!(keys.take([2; 32], 100));
        assert_eq!((keys.first[0], older(&keys)), (2, vec![1]));
        assert!(keys.take([1; 32], 200), "it is back, as from a backup");
        assert_eq!((keys.first[0], older(&keys)), (1, vec![2]));
        assert!(!keys.take([1; 32], 200 + OLDER_KEPT - 1));
        assert!(keys.take([1; 32], 200 + OLDER_KEPT));
        assert_eq!(older(&keys), [0; 0]);
        for n in 2..20 {
            keys.take([n; 32], 300);
        }
        assert_eq!((keys.first[0], older(&keys)), (19, vec![18, 17, 16, 15]));
    }
}
