//! Three primaries that share the slots.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use torwart_tests::{RedisCluster, RedisServer, eventually};

use super::*;

/// A key of each node, by its place.
fn key_of(cluster: &RedisCluster, node: usize) -> String {
    (0..100).map(|n| format!("key{n}")).find(|key| cluster.node_of(key) == node).unwrap()
}

/// As [`mk_link`], for nodes that hang.
async fn mk_quick_link(url: &str) -> std::sync::Arc<Link> {
    let options = RedisOptions { timeout: SHORT, ..RedisOptions::default() };
    let link = Link::open(mk_url(url), &options).unwrap();
    tokio::time::timeout(PATIENCE, link.connected()).await.unwrap();
    link
}

/// Asks for this key until the answer is this.
async fn until(link: &Link, key: &str, wanted: &[&str]) {
    let mut seen = HashSet::new();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let kind = link.call(set(key, "1")).await.map_or_else(|error| error.kind(), |_| "well");
        if wanted.contains(&kind) {
            return;
        }
        seen.insert(kind);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never {wanted:?}; instead: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_node_is_killed_the_others_go_on_and_it_is_used_again_when_it_is_back() {
    let mut cluster = RedisCluster::builder().full_coverage(false).start();
    let (lost, kept) = (key_of(&cluster, 1), [key_of(&cluster, 0), key_of(&cluster, 2)]);
    let link = mk_link(&cluster.url()).await;
    assert!(link.call(set(&lost, "1")).await.is_ok());
    cluster.nodes_mut()[1].kill();
    until(&link, &lost, &["disconnected"]).await;
    let go_on = async || {
        for key in kept.iter().cycle().take(500) {
            let both = link.send(vec![set(key, "2"), get(&lost)]).await;
            assert!(both[0].is_ok(), "{both:?}");
            assert!(both[1].is_err(), "{both:?}");
        }
    };
    go_on().await;
    eventually("the loss is noticed", || cluster.nodes()[0].cli(&["CLUSTER", "NODES"]).contains("fail"));
    go_on().await;
    cluster.nodes_mut()[1].start_again();
    until(&link, &lost, &["well"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_node_hangs_the_others_go_on_and_nobody_waits_for_it_for_long() {
    let cluster = RedisCluster::builder().full_coverage(false).start();
    let (lost, kept) = (key_of(&cluster, 1), [key_of(&cluster, 0), key_of(&cluster, 2)]);
    let link = mk_quick_link(&cluster.url()).await;
    cluster.nodes()[1].signal("STOP");
    until(&link, &lost, &["timeout"]).await;
    until(&link, &lost, &["breaker_open", "disconnected"]).await;
    eventually("the loss is noticed", || cluster.nodes()[0].cli(&["CLUSTER", "NODES"]).contains("fail"));
    let link = mk_link_to_some(&cluster.url(), &kept).await;
    for key in kept.iter().cycle().take(1000) {
        assert!(link.call(set(key, "2")).await.is_ok());
        let kind = link.call(get(&lost)).await.unwrap_err().kind();
        assert!(["breaker_open", "disconnected"].contains(&kind), "{kind}");
    }
    cluster.nodes()[1].signal("CONT");
    until(&link, &lost, &["well"]).await;
}

/// Opened while not all nodes answer; calls do not time out by themselves.
async fn mk_link_to_some(url: &str, keys: &[String]) -> std::sync::Arc<Link> {
    let link = mk_link_to(url);
    for key in keys {
        until(&link, key, &["well"]).await;
    }
    link
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_wants_every_slot_served_is_down_with_one_node_and_comes_back() {
    let mut cluster = RedisCluster::start();
    let asker = Asker::well(&cluster.url()).await;
    let (lost, kept) = (key_of(&cluster, 2), key_of(&cluster, 0));
    let link = mk_link(&cluster.url()).await;
    cluster.nodes_mut()[2].kill();
    until(&link, &kept, &["cluster_down"]).await;
    until(&link, &kept, &["breaker_open"]).await;
    cluster.nodes_mut()[2].start_again();
    cluster.wait_ok();
    until(&link, &kept, &["well"]).await;
    until(&link, &lost, &["well"]).await;
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_of_another_kind_of_store_is_told() {
    let (cluster, server) = (RedisCluster::start(), RedisServer::start());
    let keys = [key_of(&cluster, 0), key_of(&cluster, 1)];
    let link = mk_link(&cluster.nodes()[0].url()).await;
    assert!(link.call(set(&keys[0], "1")).await.is_ok());
    assert_eq!(link.call(set(&keys[1], "1")).await.unwrap_err().kind(), "moved");
    let asker = Asker::open(&server.url().replace("redis://", "redis+cluster://"));
    let error = asker.until("unusable").await.to_string();
    assert!(error.contains("cluster support disabled"), "{error}");
    let asker = Asker::open(&format!("{}/mymaster", server.url().replace("redis://", "redis+sentinel://")));
    let error = asker.until("unusable").await.to_string();
    assert!(error.contains("unknown command 'SENTINEL'"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_dropped_leaves_no_task() {
    let cluster = RedisCluster::start();
    let link = mk_link(&cluster.url()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks() > 3);
    drop(link);
    eventually("no task is left", || tasks() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_found() {
    let mut cluster = RedisCluster::start();
    let key = key_of(&cluster, 0);
    let replica =
        RedisServer::builder().config("cluster-enabled yes").config("cluster-node-timeout 1000").start();
    let first = cluster.nodes()[0].address();
    replica.cli(&["CLUSTER", "MEET", &first.ip().to_string(), &first.port().to_string()]);
    let id = cluster.nodes()[0].cli(&["CLUSTER", "MYID"]);
    eventually("it is one of them", || replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK");
    eventually("it has a copy", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    for node in cluster.nodes() {
        eventually("all know it", || node.cli(&["CLUSTER", "NODES"]).contains("slave"));
    }
    let link = mk_link(&cluster.url()).await;
    assert!(link.call(set(&key, "1")).await.is_ok());
    cluster.nodes_mut()[0].kill();
    until(&link, &key, &["disconnected"]).await;
    until(&link, &key, &["well"]).await;
    assert!(replica.cli(&["ROLE"]).starts_with("master"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_being_moved_is_asked_for_where_it_is() {
    let cluster = RedisCluster::start();
    let key = key_of(&cluster, 0);
    let slot = cluster.nodes()[0].cli(&["CLUSTER", "KEYSLOT", &key]);
    let ids: Vec<String> = cluster.nodes().iter().map(|node| node.cli(&["CLUSTER", "MYID"])).collect();
    let link = mk_link(&cluster.url()).await;
    assert!(link.call(set(&key, "1")).await.is_ok());
    let tell = |node: usize, what: &str, of: usize| {
        assert_eq!(cluster.nodes()[node].cli(&["CLUSTER", "SETSLOT", &slot, what, &ids[of]]), "OK");
    };
    tell(1, "IMPORTING", 0);
    tell(0, "MIGRATING", 1);
    // A key of the same slot that has not come to the old node is at the new one; so are scripts.
    let other = format!("{{{key}}}.other");
    assert_eq!(link.call(get(&key)).await.unwrap(), text("1"));
    assert!(link.call(set(&other, "2")).await.is_ok());
    assert_eq!(link.call(get(&other)).await.unwrap(), text("2"));
    assert_eq!(link.call(mk_script(&other)).await.unwrap(), text("2"), "unknown to the new node until now");
    let moved = link.call(mk_move(&other, &key)).await.unwrap_err();
    assert_eq!(moved.kind(), "moved", "keys that are apart cannot be used together");
    let target = cluster.nodes()[1].address();
    let (ip, port) = (target.ip().to_string(), target.port().to_string());
    assert_eq!(cluster.nodes()[0].cli(&["MIGRATE", &ip, &port, &key, "0", "5000"]), "OK");
    for node in [1, 0, 2] {
        tell(node, "NODE", 1);
    }
    // The map is an old one: followed within the call.
    assert_eq!(link.call(get(&key)).await.unwrap(), text("1"));
    assert_eq!(link.call(mk_script(&other)).await.unwrap(), text("2"));
}

const SCRIPT: &str = "return redis.call('GET', KEYS[1])";

fn mk_script(key: &str) -> Request {
    let mut command = redis::cmd("EVALSHA");
    command.arg(redis::Script::new(SCRIPT).get_hash()).arg(1).arg(key);
    Request::script(key.as_bytes(), command, SCRIPT)
}

fn mk_move(one: &str, other: &str) -> Request {
    let mut command = redis::cmd("MGET");
    command.arg(one).arg(other);
    Request::new(one.as_bytes(), command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_to_a_new_node_under_load_are_followed() {
    let cluster = RedisCluster::start();
    let asker = std::sync::Arc::new(Asker::with(&cluster.url(), patient()));
    asker.until_well().await;
    let new =
        RedisServer::builder().config("cluster-enabled yes").config("cluster-node-timeout 1000").start();
    let first = cluster.nodes()[0].address();
    new.cli(&["CLUSTER", "MEET", &first.ip().to_string(), &first.port().to_string()]);
    for node in cluster.nodes() {
        eventually("all know it", || node.cli(&["CLUSTER", "NODES"]).contains(&new.address().to_string()));
    }
    eventually("it is one of them", || new.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    let ids = [cluster.nodes()[0].cli(&["CLUSTER", "MYID"]), new.cli(&["CLUSTER", "MYID"])];
    let is_over = std::sync::Arc::new(AtomicBool::new(false));
    let load = {
        let (asker, is_over) = (std::sync::Arc::clone(&asker), std::sync::Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut kinds = HashSet::new();
            while !is_over.load(Ordering::Relaxed) {
                kinds.insert(asker.ask().await.map_or_else(|error| error.kind(), |_| "well"));
            }
            kinds
        })
    };
    let address = first.to_string();
    let arguments = ["--cluster", "reshard", &address, "--cluster-from", &ids[0], "--cluster-to", &ids[1]];
    let rest = ["--cluster-slots", "500", "--cluster-yes"];
    let moved = std::process::Command::new("redis-cli").args(arguments).args(rest).output().unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stdout));
    is_over.store(true, Ordering::Relaxed);
    let kinds = load.await.unwrap();
    // Until it is known, and then until it is connected, calls for what the new node has do not reach it.
    let expected = HashSet::from(["well", "moved", "disconnected"]);
    assert!(kinds.contains("well") && kinds.is_subset(&expected), "{kinds:?}");
    asker.until_well().await;
    assert_ne!(new.cli(&["DBSIZE"]), "0");
    for _ in 0..200 {
        assert!(asker.ask().await.is_ok());
    }
}
