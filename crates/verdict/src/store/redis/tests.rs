//! What is true of Redis alone; the suite of all stores runs over it as well.

mod events;
mod failures;
mod full;
mod server;
mod together;

use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, from_redis_value};
use torwart_core::Greylist::{self, Auto, Early, Known, New, Passed};
use torwart_policy::greylist::Params;

use super::testing::{TestServer, connected, mk_options};
use super::*;
use crate::clock::ManualClock;
use crate::store::KeySet;
use crate::store::suite::{mk_call, mk_call_under, mk_greylisting, mk_revocation};

const START: i64 = 1_800_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

async fn outcomes(store: &RedisStore, call: Call) -> Vec<Greylist> {
    store.check(call).await.unwrap().iter().map(|judged| judged.outcome).collect()
}

/// One command, mostly about a key.
async fn tell<T: FromRedisValue>(
    store: &RedisStore,
    command: &[&str],
    key: Option<&[u8]>,
    more: &[&[u8]],
) -> T {
    let mut whole = redis::Cmd::new();
    for word in command {
        whole.arg(*word);
    }
    for word in key.iter().chain(more) {
        whole.arg(*word);
    }
    let request = Request::new(key.unwrap_or_default(), whole);
    from_redis_value(store.link.call(request).await.unwrap()).unwrap()
}

/// The names of a call's triplets, then its known senders.
fn record_names(set: &KeySet) -> Vec<[u8; keys::RECORD]> {
    set.triplets.iter().chain(&set.known).map(|key| keys::record(&set.slot, key)).collect()
}
