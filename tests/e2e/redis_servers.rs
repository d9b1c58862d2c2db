//! The Redis servers around the gateway, each by itself: a test that fails later can then only mean the gateway.

use torwart_tests::{Certificate, RedisCluster, RedisSentinels, RedisServer, address, eventually};

#[test]
fn a_redis_forgets_with_a_kill_unless_it_is_asked_not_to() {
    let mut forgetful = RedisServer::start();
    let mut persistent = RedisServer::builder().persistent().config("maxmemory 100mb").start();
    for server in [&mut forgetful, &mut persistent] {
        assert_eq!(server.cli(&["SET", "a", "1"]), "OK");
        server.kill();
        assert_ne!(server.try_cli(&["PING"]).code, 0, "it is dead");
        server.start_again();
    }
    assert_eq!(forgetful.cli(&["GET", "a"]), "");
    assert_eq!(persistent.cli(&["GET", "a"]), "1");
    assert!(persistent.cli(&["CONFIG", "GET", "maxmemory"]).ends_with("104857600"));
}

#[test]
fn a_redis_speaks_tls_with_password_and_users() {
    let certificate = Certificate::new(&[&address().to_string()]);
    let acl = "user x on >pw ~tw* +@all";
    let server = RedisServer::builder().password("secret").acl(acl).tls(&certificate).start();
    assert!(server.url().starts_with("rediss://") && !server.url().contains("secret"));
    assert_eq!(server.cli(&["PING"]), "PONG");
    assert!(server.cli(&["ACL", "LIST"]).contains("user x on"));
    assert_eq!(server.cli(&["AUTH", "x", "pw"]), "OK");
    assert!(server.cli(&["AUTH", "wrong"]).contains("WRONGPASS"));
}

#[test]
fn a_redis_replica_has_what_its_primary_has_and_takes_no_writes() {
    let primary = RedisServer::builder().password("secret").start();
    primary.cli(&["SET", "a", "1"]);
    let replica = RedisServer::builder().replica_of(&primary).start();
    assert_eq!(replica.cli(&["GET", "a"]), "1");
    assert!(replica.cli(&["SET", "a", "2"]).contains("READONLY"));
    assert!(primary.cli(&["INFO", "replication"]).contains(&format!("port={}", replica.address().port())));
}

#[test]
fn a_redis_cluster_serves_every_slot_and_survives_the_loss_of_one_node() {
    let mut cluster = RedisCluster::builder().full_coverage(false).start();
    let keys = ["a", "b", "c", "d", "e", "f"];
    for key in keys {
        let node = cluster.node_of(key);
        assert_eq!(cluster.nodes()[node].cli(&["SET", key, "1"]), "OK", "{key}");
    }
    let lost = cluster.node_of("a");
    let kept = keys.into_iter().find(|key| cluster.node_of(key) != lost).unwrap();
    let other = cluster.node_of(kept);
    cluster.nodes_mut()[lost].kill();
    eventually("the loss is noticed", || cluster.nodes()[other].cli(&["CLUSTER", "NODES"]).contains("fail"));
    assert_eq!(cluster.nodes()[other].cli(&["SET", kept, "2"]), "OK");
    cluster.nodes_mut()[lost].start_again();
    cluster.wait_ok();
}

#[test]
fn sentinels_make_the_replica_the_primary_when_the_primary_is_gone() {
    let mut redis = RedisSentinels::start();
    let (old, new) = (redis.primary().address(), redis.replica().address());
    assert_eq!(redis.current(), Some(old));
    redis.primary().cli(&["SET", "a", "1"]);
    redis.primary().kill();
    redis.wait_current(new);
    eventually("it takes writes", || redis.replica().cli(&["SET", "a", "2"]) == "OK");
}
