//! Passes that this process was told of a moment ago.

use std::fmt;
use std::sync::Arc;

use moka::sync::Cache;
use tokio::sync::watch;
use torwart_core::{BoxFuture, Greylist};
use torwart_policy::greylist::{Judged, Params};

use crate::clock::Clock;
use crate::store::{Call, Key, Revocation, Stats, Store, StoreError};

/// A decorator: answers a call that passed less than [`CachedStore::LONGEST`] ago without asking the store again.
/// The null sender's are always asked, for its passes are good once; so is what passes by trust, which may be taken
/// back at any time, by any process.
///
/// A delivery through this process makes its call a pass.
pub struct CachedStore {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// By slot, the last call of each: who has passed mostly comes again as he came before.
    passes: Cache<Key, Arc<Pass>>,
}

struct Pass {
    params: Params,
    triplets: Box<[Key]>,
    /// Unix seconds, from before the store was asked.
    since: i64,
}

/// What all passes together take, in bytes: 50,000 of one triplet each, which is 800 messages a second.
const MOST_BYTES: u64 = 24 << 20;
/// One pass, with what the cache needs to find it and to forget it in time, as measured on the process; and one
/// triplet of it.
const PASS_BYTES: u32 = 480;
const TRIPLET_BYTES: u32 = 16;
/// A call of more is no call of every day, and is asked.
const MOST_PER_CALL: usize = 1000;

// === impl CachedStore ===

impl CachedStore {
    /// How long a pass may outlive its record, in seconds: one that somebody has deleted.
    pub const LONGEST: u32 = 60;

    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let weigh = |_: &Key, pass: &Arc<Pass>| {
            let triplets = u32::try_from(pass.triplets.len()).unwrap_or(u32::MAX);
            triplets.saturating_mul(TRIPLET_BYTES).saturating_add(PASS_BYTES)
        };
        let passes = Cache::builder()
            .max_capacity(MOST_BYTES)
            .weigher(weigh)
            // Of a clock that does not jump.
            .time_to_live(std::time::Duration::from_secs(Self::LONGEST.into()))
            .build();
        Self { store, clock, passes }
    }

    fn find(&self, call: &Call) -> Option<Vec<Judged>> {
        let pass = self.passes.get(&call.current.slot)?;
        let age = self.clock.now().checked_sub(pass.since)?;
        let is_same = pass.params == call.params && *pass.triplets == *call.current.triplets;
        (is_same && (0..i64::from(Self::LONGEST)).contains(&age)).then(|| {
            let judged = Judged { outcome: Greylist::Passed, wait: 0, held: None };
            vec![judged; call.members().len()]
        })
    }

    fn keep(&self, slot: Key, pass: Pass) {
        self.passes.insert(slot, Arc::new(pass));
    }

    /// What the call will be when it passes; None for one that must be asked every time.
    fn draft(&self, call: &Call) -> Option<Pass> {
        let triplets = &call.current.triplets;
        let is_lasting = !call.params.single_use() && call.params.pass_ttl() >= Self::LONGEST;
        (is_lasting && (1..=MOST_PER_CALL).contains(&triplets.len())).then(|| Pass {
            params: call.params,
            triplets: triplets.as_slice().into(),
            since: self.clock.now(),
        })
    }

    async fn ask(&self, call: Call) -> Result<Vec<Judged>, StoreError> {
        let Some(draft) = self.draft(&call) else { return self.store.check(call).await };
        if let Some(judged) = self.find(&call) {
            return Ok(judged);
        }
        let slot = call.current.slot;
        let judged = self.store.check(call).await?;
        if judged.iter().all(|judged| judged.outcome == Greylist::Passed) {
            self.keep(slot, draft);
        }
        Ok(judged)
    }

    async fn remember(&self, call: Call, trust: bool) -> Result<(), StoreError> {
        let (slot, draft) = (call.current.slot, self.draft(&call));
        self.store.deliver(call, trust).await?;
        if let Some(pass) = draft {
            self.keep(slot, pass);
        }
        Ok(())
    }
}

impl Store for CachedStore {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    fn is_persistent(&self) -> bool {
        self.store.is_persistent()
    }

    fn check(&self, call: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>> {
        Box::pin(self.ask(call))
    }

    fn deliver(&self, call: Call, trust: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.remember(call, trust))
    }

    fn give_back(&self, call: Call) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.give_back(call)
    }

    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.revoke(revocation)
    }

    fn secret(&self, fresh: [u8; 32]) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        self.store.secret(fresh)
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.store.sweep()
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        self.store.stats()
    }

    fn take_fault(&self) -> Option<StoreError> {
        self.store.take_fault()
    }

    fn connects(&self) -> Option<watch::Receiver<u64>> {
        self.store.connects()
    }

    fn connected(&self) -> BoxFuture<'_, ()> {
        self.store.connected()
    }
}

impl fmt::Debug for CachedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
