use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use prometheus::Registry;
use torwart_core::{BoxFuture, DeliveryResult, Greylist, Verdicts};
use torwart_policy::greylist::Judged;
use torwart_tests::{PATIENCE, RedisServer};

use super::*;
use crate::clock::SystemClock;
use crate::engine::{Engine, MessageLimits, Options};
use crate::store::{Call, MemoryStore, RedisOptions, RedisStore, Revocation, Stats, TestServer};
use crate::testing::{ANNA, BOB, CLIENT, metric, mk_delivery, mk_policy, mk_question};

fn mk_options(store: Arc<dyn Store>, key_files: Vec<PathBuf>) -> Options {
    Options {
        store,
        clock: Arc::new(SystemClock),
        key_files,
        store_timeout: Duration::from_secs(10),
        own_addresses: Vec::new(),
        messages: MessageLimits::default(),
        checks: crate::CheckOptions::default(),
    }
}

async fn mk_engine(store: RedisStore) -> Engine {
    Engine::start(mk_options(Arc::new(store), Vec::new()), &Registry::new()).await.unwrap()
}

/// What two engines write a record under.
fn names(engine: &Engine) -> String {
    format!("{:?}", engine.keys.current().unwrap().name_of("anything"))
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
    assert_eq!(one.keys.current().unwrap().count(), 2, "what was written in between is read");
    assert_eq!(three.keys.current().unwrap().count(), 1);
}

#[tokio::test]
async fn an_engine_starts_without_its_server_and_takes_the_key_when_it_comes() {
    let mut server = TestServer::start(RedisServer::builder().persistent().start());
    let first = mk_engine(server.only_store().await).await;
    server.server.kill();
    let store = RedisStore::open(server.url(), &RedisOptions::default()).unwrap();
    let late = mk_engine(store).await;
    late.set_policy(mk_policy("r1", 1, |_, _| {}));
    let ask = async || late.check_recipients(mk_question(CLIENT, ANNA, &[BOB])).await.unwrap();
    assert_eq!(ask().await.recipients[0].greylist, Some(Greylist::StoreFailure));
    server.server.start_again();
    let key_is_known = async {
        while late.keys.current().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, key_is_known).await.expect("a key");
    assert_eq!(names(&late), names(&first));
    assert_eq!(late.keys.current().unwrap().count(), 1, "there never was another");
}

#[tokio::test(start_paused = true)]
async fn while_the_stores_key_cannot_be_read_nothing_is_written_under_another() {
    let store = Arc::new(Emptied::new());
    store.is_mute.store(true, Ordering::Relaxed);
    let registry = Registry::new();
    let engine = Engine::start(mk_options(store.clone(), Vec::new()), &registry).await.unwrap();
    engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    let ask = async || engine.check_recipients(mk_question(CLIENT, ANNA, &[BOB])).await.unwrap();
    assert_eq!(ask().await.recipients[0].greylist, Some(Greylist::StoreFailure));
    engine.report_delivery(mk_delivery(CLIENT, ANNA, &[BOB], DeliveryResult::Delivered)).await;
    assert_eq!(store.calls.load(Ordering::Relaxed), 0);
    let failures = metric(&registry, "torwart_store_failures_total{kind=\"oom\"}");
    assert_eq!(failures.as_deref(), Some("2"));
    store.is_mute.store(false, Ordering::Relaxed);
    tokio::time::sleep(2 * RETRY_INTERVAL).await;
    ask().await;
    assert_eq!(store.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn with_key_files_the_store_is_not_asked() {
    let server = TestServer::start(RedisServer::start());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let options = mk_options(Arc::new(server.only_store().await), vec![file.path().to_owned()]);
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

/// A server that is emptied while the connection lasts.
#[derive(Debug)]
struct Emptied {
    store: Mutex<MemoryStore>,
    connects: watch::Sender<u64>,
    /// Its key can't be read.
    is_mute: AtomicBool,
    /// All but those for its key.
    calls: AtomicUsize,
}

impl Emptied {
    fn new() -> Self {
        let store = MemoryStore::new(100, Arc::new(SystemClock));
        Self {
            store: Mutex::new(store),
            connects: watch::Sender::new(1),
            is_mute: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        }
    }

    fn empty(&self) {
        *self.store.lock().unwrap() = MemoryStore::new(100, Arc::new(SystemClock));
    }

    fn never<T: Send + 'static>(&self) -> BoxFuture<'_, Result<T, StoreError>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Err(StoreError::Closed)))
    }
}

impl Store for Emptied {
    fn kind(&self) -> &'static str {
        "emptied"
    }

    fn is_persistent(&self) -> bool {
        true
    }

    fn check(&self, _: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>> {
        self.never()
    }

    fn deliver(&self, _: Call, _: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        self.never()
    }

    fn give_back(&self, _: Call) -> BoxFuture<'_, Result<(), StoreError>> {
        self.never()
    }

    fn revoke(&self, _: Revocation) -> BoxFuture<'_, Result<(), StoreError>> {
        self.never()
    }

    fn secret(&self, fresh: [u8; 32]) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        if self.is_mute.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(StoreError::OutOfMemory)));
        }
        let store = self.store.lock().unwrap();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let secret = match store.secret(fresh).as_mut().poll(&mut context) {
            Poll::Ready(secret) => secret,
            Poll::Pending => Err(StoreError::Closed),
        };
        Box::pin(std::future::ready(secret))
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.never()
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        self.never()
    }

    fn connects(&self) -> Option<watch::Receiver<u64>> {
        Some(self.connects.subscribe())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_without_a_word_is_asked_within_half_a_minute() {
    let store = Arc::new(Emptied::new());
    let one = Engine::start(mk_options(store.clone(), Vec::new()), &Registry::new()).await.unwrap();
    let before = names(&one);
    store.empty();
    let other = store.secret([7; 32]).await.unwrap();
    tokio::time::sleep(INTERVAL - Duration::from_secs(1)).await;
    assert_eq!(names(&one), before);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_ne!(names(&one), before);
    assert_eq!(names(&one), format!("{:?}", Keyring::new(&other).name_of("anything")));

    // Nobody else has come: the key stays.
    store.empty();
    let before = names(&one);
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!(names(&one), before);
    assert_eq!(store.secret([8; 32]).await.unwrap(), other, "and is put there again");
    drop(one);
    store.empty();
    tokio::time::sleep(2 * INTERVAL).await;
    assert_eq!(store.secret([9; 32]).await.unwrap(), [9; 32], "an engine that ended asks no more");
}
