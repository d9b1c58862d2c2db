//! Real servers that fail in every way that is known, and what a caller of the store hears: which kind of error, and
//! that it is well again by itself when the server is.

mod access;
mod cluster;
mod overload;
mod sentinel;
mod standalone;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;
use torwart_core::Greylist;
use torwart_tests::PATIENCE;

use crate::store::redis::link::{Link, Request};
use crate::store::redis::{RedisOptions, RedisStore, RedisUrl};
use crate::store::suite::mk_call;
use crate::store::{Call, Store, StoreError};

/// A store that is asked as the engine asks it.
struct Asker {
    store: RedisStore,
    next: AtomicU32,
}

// === impl Asker ===

impl Asker {
    fn open(url: &str) -> Self {
        Self::with(url, patient())
    }

    fn with(url: &str, options: RedisOptions) -> Self {
        Self { store: RedisStore::open(mk_url(url), &options).unwrap(), next: AtomicU32::new(1) }
    }

    /// Has been answered. Calls do not time out by themselves: a busy machine is no failure of the server.
    async fn well(url: &str) -> Self {
        Self::well_with(url, PATIENCE).await
    }

    async fn well_with(url: &str, timeout: Duration) -> Self {
        let asker = Self::with(url, RedisOptions { timeout, ..RedisOptions::default() });
        asker.until_well().await;
        asker
    }

    /// About a sender that nobody has asked about.
    fn mk_call(&self) -> Call {
        mk_call(self.next.fetch_add(1, Ordering::Relaxed), &[1], &[1])
    }

    /// The kind of failure, if it is one.
    async fn ask(&self) -> Result<Greylist, StoreError> {
        self.ask_about(self.mk_call()).await
    }

    async fn ask_about(&self, call: Call) -> Result<Greylist, StoreError> {
        let judged = self.store.check(call).await?;
        Ok(judged.first().unwrap().outcome)
    }

    /// Asks until it fails in this way; returns the error.
    async fn until(&self, kind: &str) -> StoreError {
        let mut seen = Vec::new();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.ask().await {
                Err(error) if error.kind() == kind => return error,
                other => seen.push(other.map_or_else(|error| error.kind(), |_| "well")),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen.dedup();
        panic!("never {kind}; instead: {seen:?}");
    }

    /// Asks until it is answered.
    async fn until_well(&self) {
        let mut seen = Vec::new();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.ask().await {
                Ok(outcome) => return assert_eq!(outcome, Greylist::New),
                Err(error) => seen.push(error.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen.dedup();
        panic!("never well: {seen:#?}");
    }

    fn connects(&self) -> u64 {
        *self.store.link.connects().borrow()
    }
}

/// For servers that hang: so short that a test can wait for it, so long that no busy machine needs it.
const SHORT: Duration = Duration::from_secs(1);

fn mk_url(url: &str) -> RedisUrl {
    url.parse().unwrap()
}

/// For tests that are about the connection alone; calls do not time out by themselves.
async fn mk_link(url: &str) -> std::sync::Arc<Link> {
    let link = mk_link_to(url);
    tokio::time::timeout(PATIENCE, link.connected()).await.unwrap();
    link
}

fn mk_link_to(url: &str) -> std::sync::Arc<Link> {
    Link::open(mk_url(url), &patient()).unwrap()
}

fn patient() -> RedisOptions {
    RedisOptions { timeout: PATIENCE, ..RedisOptions::default() }
}

fn get(key: &str) -> Request {
    let mut command = redis::cmd("GET");
    command.arg(key);
    Request::new(key.as_bytes(), command)
}

fn set(key: &str, value: &str) -> Request {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(value);
    Request::new(key.as_bytes(), command)
}

fn text(value: &str) -> Value {
    Value::BulkString(value.into())
}
