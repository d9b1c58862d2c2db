//! A primary, its replica and Sentinels.

use std::net::SocketAddr;

use torwart_core::Greylist;
use torwart_tests::{RedisSentinels, RedisServer, eventually};

use super::*;

/// From now on these Sentinels take another server for the primary.
#[track_caller]
fn name_primary(sentinels: &[RedisServer], new: SocketAddr) {
    let (ip, port) = (new.ip().to_string(), new.port().to_string());
    for sentinel in sentinels {
        assert_eq!(sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]), "OK");
        assert_eq!(sentinel.cli(&["SENTINEL", "MONITOR", "mymaster", &ip, &port, "2"]), "OK");
    }
}

async fn writes_go_to_the_replica(redis: &mut RedisSentinels, asker: &Asker) {
    let keys = redis.replica().cli(&["DBSIZE"]);
    asker.until_well().await;
    assert_ne!(redis.replica().cli(&["DBSIZE"]), keys, "writes go to the new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_is_followed_when_the_primary_is_killed() {
    let mut redis = RedisSentinels::start();
    let new = redis.replica().address();
    let asker = Asker::well(&redis.url("mymaster")).await;
    let call = asker.mk_call();
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::New);
    eventually("the replica has it", || redis.replica().cli(&["DBSIZE"]) == redis.primary().cli(&["DBSIZE"]));
    redis.primary().kill();
    asker.until("disconnected").await;
    redis.wait_current(new);
    asker.until_well().await;
    assert_eq!(asker.ask_about(call).await.unwrap(), Greylist::Early, "what was replicated is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_is_followed_when_the_primary_hangs_and_kept_when_it_wakes() {
    let mut redis = RedisSentinels::start();
    let new = redis.replica().address();
    let asker = Asker::well_with(&redis.url("mymaster"), SHORT).await;
    redis.primary().signal("STOP");
    asker.until("timeout").await;
    redis.wait_current(new);
    asker.until_well().await;
    redis.primary().signal("CONT");
    eventually("the old primary is a replica", || {
        redis.primary().try_cli(&["ROLE"]).text.starts_with("slave")
    });
    for _ in 0..100 {
        assert_eq!(asker.ask().await.unwrap(), Greylist::New);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_was_asked_for_is_followed() {
    let mut redis = RedisSentinels::start();
    let new = redis.replica().address();
    let asker = Asker::well(&redis.url("mymaster")).await;
    let answer = redis.sentinels()[0].cli(&["SENTINEL", "FAILOVER", "mymaster"]);
    assert_eq!(answer, "OK");
    redis.wait_current(new);
    eventually("the old primary is a replica", || {
        redis.primary().try_cli(&["ROLE"]).text.starts_with("slave")
    });
    asker.until_well().await;
    writes_go_to_the_replica(&mut redis, &asker).await;
}

/// As with a network that is cut between the old primary and everybody but us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sentinels_word_holds_although_the_old_primary_still_answers() {
    let mut redis = RedisSentinels::start();
    let new = redis.replica().address();
    let asker = Asker::well(&redis.url("mymaster")).await;
    let mut connects = asker.store.link.connects();
    connects.mark_unchanged();
    assert_eq!(redis.replica().cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    name_primary(redis.sentinels(), new);
    tokio::time::timeout(PATIENCE, connects.changed()).await.unwrap().unwrap();
    writes_go_to_the_replica(&mut redis, &asker).await;
}

/// The Sentinel that we heard of the primary from is dead, and the others have chosen another primary since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_sentinels_word_holds_when_the_first_is_gone() {
    let mut redis = RedisSentinels::start();
    let new = redis.replica().address();
    let asker = Asker::well(&redis.url("mymaster")).await;
    let mut connects = asker.store.link.connects();
    connects.mark_unchanged();
    redis.sentinels()[0].kill();
    assert_eq!(redis.replica().cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    name_primary(&redis.sentinels()[1..], new);
    tokio::time::timeout(PATIENCE, connects.changed()).await.unwrap().unwrap();
    writes_go_to_the_replica(&mut redis, &asker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_is_enough_and_servers_may_have_a_password_that_sentinels_have_not() {
    let mut redis = RedisSentinels::builder().password("secret").start();
    let url = redis.url("mymaster").replace("redis+sentinel://", "redis+sentinel://:secret@");
    let [dead, hanging, _] = redis.sentinels() else { panic!("three") };
    dead.kill();
    hanging.signal("STOP");
    Asker::open(&url).until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_no_sentinel_knows_is_told() {
    let redis = RedisSentinels::start();
    let asker = Asker::open(&redis.url("nobody"));
    eventually_said(&asker, "no Sentinel's primary is called nobody").await;
}

async fn eventually_said(asker: &Asker, what: &str) {
    let end = Instant::now() + PATIENCE;
    while !asker.until("disconnected").await.to_string().contains(what) {
        assert!(Instant::now() < end, "never: {what}");
    }
}
