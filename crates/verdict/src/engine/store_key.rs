//! The key that hides addresses, where it is kept in the store itself.
//!
//! A store on a server may lose it with everything else: it is flushed, or restarted empty. Whoever comes first puts
//! a key there again, and that need not be ours; two processes with different keys would make each sender wait once
//! for each of them. So the store is asked again and again, with ours as the one to be kept, and what it says is
//! taken up. Until it has said something for the first time there is no key: what was written under one of our own
//! invention nobody else would find.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
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
    ring: Arc<ArcSwap<Known>>,
    asking: Option<JoinHandle<()>>,
}

/// The keyring, or why there is none yet.
type Known = Result<Arc<Keyring>, StoreError>;

/// Asks the store for its key.
struct Asking {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ring: Arc<ArcSwap<Known>>,
    /// What the store keeps if it has none.
    fresh: Secret,
    keys: Option<Keys>,
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
/// A server may be away for longer than anyone wants to wait. Then we begin without a key, which is a failure of the
/// store; it is asked again as soon as there is a connection.
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
        Self { ring: Arc::new(ArcSwap::from_pointee(Ok(Arc::new(ring)))), asking: None }
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
        let has_answered = found.is_ok();
        let keys = found.map(Keys::new);
        let known = keys.as_ref().map(|keys| Arc::new(keys.ring())).map_err(Clone::clone);
        let ring = Arc::new(ArcSwap::from_pointee(known));
        let asking = Asking {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            ring: Arc::clone(&ring),
            fresh,
            keys: keys.ok(),
            connects,
            has_answered,
        };
        Ok(Self { ring, asking: Some(tokio::spawn(asking.run())) })
    }

    /// # Errors
    /// Why the store's own key is not known yet.
    pub(super) fn current(&self) -> Known {
        Known::clone(&self.ring.load())
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
) -> Result<Secret, StoreError> {
    let deadline = Instant::now() + SERVER_START_TIMEOUT;
    loop {
        let error = match timeout_at(deadline, store.secret(fresh)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => StoreError::TimedOut,
        };
        let pause = deadline.min(Instant::now() + RETRY_INTERVAL);
        let _connected = timeout_at(pause, connects.changed()).await;
        if Instant::now() >= deadline {
            tracing::warn!(
                store = store.kind(),
                %error,
                "the store's own key could not be read yet: greylisting begins when it is"
            );
            return Err(error);
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
            let ours = self.keys.as_ref().map_or(self.fresh, |keys| keys.first);
            let answer = timeout(ANSWER_TIMEOUT, self.store.secret(ours)).await;
            let answer = answer.unwrap_or(Err(StoreError::TimedOut));
            self.has_answered = answer.is_ok();
            match answer {
                Ok(found) => self.take(found),
                Err(error) if self.keys.is_none() => self.ring.store(Arc::new(Err(error))),
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, found: Secret) {
        let is_first = self.keys.is_none();
        let keys = self.keys.get_or_insert_with(|| Keys::new(found));
        if is_first {
            tracing::info!(store = self.store.kind(), "the store's own key was read: greylisting begins");
        } else if found != keys.first {
            tracing::warn!(
                store = self.store.kind(),
                "the store holds another key than before, as after it was emptied: using it from now on"
            );
        }
        if keys.take(found, self.clock.now()) || is_first {
            self.ring.store(Arc::new(Ok(Arc::new(keys.ring()))));
        }
    }
}

// === impl Keys ===

impl Keys {
    fn new(first: Secret) -> Self {
        Self { first, older: Vec::new() }
    }

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
mod tests;
