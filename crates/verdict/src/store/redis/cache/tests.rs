use std::sync::atomic::{AtomicUsize, Ordering};

use torwart_core::Greylist::{Known, New, Passed};

use super::*;
use crate::clock::ManualClock;
use crate::store::MemoryStore;
use crate::store::suite::{mk_call, mk_revocation};

/// Counts what it is asked, and fails while it is told to.
#[derive(Debug)]
struct Counted {
    store: MemoryStore,
    asked: AtomicUsize,
}

impl Store for Counted {
    fn kind(&self) -> &'static str {
        "counted"
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn check(&self, call: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.store.check(call)
    }

    fn deliver(&self, call: Call, trust: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.deliver(call, trust)
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
}

struct Setup {
    cached: CachedStore,
    inner: Arc<Counted>,
    clock: Arc<ManualClock>,
}

fn mk_setup() -> Setup {
    let clock = Arc::new(ManualClock::new(1_800_000_000));
    let store = MemoryStore::new(1000, clock.clone());
    let inner = Arc::new(Counted { store, asked: AtomicUsize::new(0) });
    Setup { cached: CachedStore::new(inner.clone(), clock.clone()), inner, clock }
}

impl Setup {
    /// What the first recipient hears, and whether the store was asked for it.
    async fn ask(&self, call: Call) -> (Greylist, bool) {
        let before = self.inner.asked.load(Ordering::Relaxed);
        let judged = self.cached.check(call).await.unwrap();
        (judged[0].outcome, self.inner.asked.load(Ordering::Relaxed) > before)
    }
}

#[tokio::test]
async fn a_pass_is_asked_for_once_a_minute_and_a_deferral_every_time() {
    let setup = mk_setup();
    let call = || mk_call(1, &[1], &[1, 2]);
    assert_eq!(setup.ask(call()).await, (New, true));
    assert!(setup.ask(call()).await.1);
    setup.clock.advance(300);
    assert_eq!(setup.ask(call()).await, (Passed, true));
    setup.clock.advance(59);
    assert_eq!(setup.ask(call()).await, (Passed, false));
    assert_eq!(setup.cached.check(call()).await.unwrap().len(), 2, "one answer for each");
    setup.clock.advance(1);
    assert_eq!(setup.ask(call()).await, (Passed, true));
    setup.clock.advance(-10);
    assert!(setup.ask(call()).await.1, "a clock that was set back");
}

#[tokio::test]
async fn another_call_of_the_same_sender_is_asked() {
    let setup = mk_setup();
    setup.cached.deliver(mk_call(1, &[1], &[1]), false).await.unwrap();
    assert_eq!(setup.ask(mk_call(1, &[1], &[1])).await, (Passed, false), "a delivery is a pass");
    assert_eq!(setup.ask(mk_call(1, &[1], &[2])).await, (New, true));
    assert!(setup.ask(mk_call(1, &[2], &[1])).await.1);
    assert!(setup.ask(mk_call(1, &[1], &[1, 2])).await.1);
    let mut strict = mk_call(1, &[1], &[1]);
    strict.params = crate::store::suite::mk_params(true);
    assert!(setup.ask(strict).await.1);
}

#[tokio::test]
async fn the_null_sender_is_asked_every_time() {
    let setup = mk_setup();
    setup.ask(mk_call(0, &[1], &[1])).await;
    setup.clock.advance(300);
    assert_eq!(setup.ask(mk_call(0, &[1], &[1])).await, (Passed, true));
    assert_eq!(setup.ask(mk_call(0, &[1], &[1])).await, (Greylist::Early, true), "lent once");
}

#[tokio::test]
async fn trust_is_asked_for_every_time_and_so_is_gone_at_once_wherever_it_is_taken_back() {
    let setup = mk_setup();
    for trust in [Known, Greylist::Auto] {
        for (sender, hours) in [(1, 0), (2, 1), (3, 2)] {
            setup.clock.set(1_800_000_000 + hours * 3600);
            setup.cached.deliver(mk_call(sender, &[1], &[1]), true).await.unwrap();
        }
        let sender = if trust == Known { 3 } else { 9 };
        let call = || mk_call(sender, &[1], &[7]);
        assert_eq!(setup.ask(call()).await, (trust, true));
        assert_eq!(setup.ask(call()).await, (trust, true));
        setup.inner.revoke(mk_revocation(3, &[1])).await.unwrap();
        assert_ne!(setup.ask(call()).await.0, trust);
    }
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let setup = mk_setup();
    for sender in 1..60_000 {
        setup.cached.deliver(mk_call(sender, &[1], &[1]), false).await.unwrap();
    }
    setup.cached.passes.run_pending_tasks();
    assert!((40_000..51_000).contains(&setup.cached.passes.entry_count()));
    assert!(setup.cached.passes.weighted_size() <= MOST_BYTES);
}
