//! A server for the tests of this process, with a database for each store.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use torwart_tests::RedisServer;

use super::{RedisOptions, RedisStore, RedisUrl};
use crate::clock::ManualClock;

/// Databases of one server, each for one store.
const DATABASES: u32 = 4096;

/// Ends with the last test that has it.
pub(crate) struct TestServer {
    pub(crate) server: RedisServer,
    used: AtomicU32,
}

// === impl TestServer ===

impl TestServer {
    /// The one that runs, or a new one.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<TestServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(
                RedisServer::builder().config(&format!("databases {DATABASES}")).start(),
            ));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    pub(crate) fn start(server: RedisServer) -> Self {
        Self { server, used: AtomicU32::new(0) }
    }

    /// An empty store that is judged by this clock.
    pub(crate) async fn store(&self, clock: Arc<ManualClock>) -> RedisStore {
        connected(RedisStore::open_by(self.database(), &mk_options(), clock).unwrap()).await
    }

    /// The same empty store as two processes have it.
    pub(super) async fn two_stores(&self, clock: Arc<ManualClock>) -> [RedisStore; 2] {
        let url = self.database();
        let open = || connected(RedisStore::open_by(url.clone(), &mk_options(), clock.clone()).unwrap());
        [open().await, open().await]
    }

    /// An empty store as it is in use.
    pub(crate) async fn real_store(&self) -> RedisStore {
        connected(RedisStore::open(self.database(), &mk_options()).unwrap()).await
    }

    /// A store as it is in use, the same each time.
    pub(crate) async fn only_store(&self) -> RedisStore {
        connected(RedisStore::open(self.url(), &mk_options()).unwrap()).await
    }

    pub(crate) fn url(&self) -> RedisUrl {
        self.server.url().parse().unwrap()
    }

    /// One that is nobody's yet.
    fn database(&self) -> RedisUrl {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        assert!(number < DATABASES, "one test at a time has so many stores");
        self.url().with_database(number)
    }
}

/// A busy machine is no failure of the server.
pub(super) fn mk_options() -> RedisOptions {
    RedisOptions { timeout: Duration::from_secs(10), ..RedisOptions::default() }
}

pub(super) async fn connected(store: RedisStore) -> RedisStore {
    let waited = tokio::time::timeout(torwart_tests::PATIENCE, store.link.connected()).await;
    waited.expect("a connection");
    store
}
