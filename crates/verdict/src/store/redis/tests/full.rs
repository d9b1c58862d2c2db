//! What a server says that takes no writes, and what it is then believed.

use torwart_tests::RedisCluster;

use super::*;
use crate::store::redis::slots::slot_of;

/// The kinds of what answered calls have met since the last time.
fn faults(store: &RedisStore) -> Vec<&'static str> {
    std::iter::from_fn(|| store.take_fault()).map(|fault| fault.kind()).collect()
}

#[tokio::test]
async fn a_full_server_stops_nobody_who_has_passed_and_its_fault_is_told() {
    let server = TestServer::start(torwart_tests::RedisServer::start());
    let clock = Arc::new(ManualClock::new(START));
    let store = server.store(clock.clone()).await;
    for sender in [1, 2, 3] {
        store.deliver(mk_call(sender, &[1], &[1]), true).await.unwrap();
        clock.advance(HOUR);
    }
    assert_eq!(outcomes(&store, mk_call(4, &[2], &[1])).await, [New]);
    assert_eq!(outcomes(&store, mk_call(0, &[2], &[1])).await, [New]);
    clock.advance(300);
    assert_eq!(faults(&store), [""; 0]);
    for (limit, refusal) in [(["maxmemory", "1"], "oom"), (["min-replicas-to-write", "1"], "io")] {
        assert_eq!(server.server.cli(&["CONFIG", "SET", limit[0], limit[1]]), "OK");
        for (call, outcome) in [
            (mk_call(1, &[1], &[1]), Passed),
            (mk_call(1, &[1], &[1, 9]), Passed),
            (mk_call(4, &[2], &[1]), Passed),
            (mk_call(9, &[1], &[1]), Auto),
        ] {
            let recipients = call.members().len();
            assert_eq!(outcomes(&store, call).await, vec![outcome; recipients]);
            assert_eq!(faults(&store), [refusal]);
        }
        assert_eq!(outcomes(&store, mk_call(1, &[1], &[7])).await, [Known]);
        assert_eq!(faults(&store), [""; 0], "nothing was to be written");
        for call in [mk_call(9, &[2], &[1]), mk_call(0, &[2], &[1])] {
            assert_eq!(store.check(call).await.unwrap_err().kind(), refusal);
        }
        assert_eq!(server.server.cli(&["CONFIG", "SET", limit[0], "0"]), "OK");
    }
    assert_eq!(outcomes(&store, mk_call(0, &[2], &[1])).await, [Passed], "was not lent in vain");
}

#[tokio::test]
async fn a_server_without_memory_still_says_its_key() {
    let server = TestServer::start(torwart_tests::RedisServer::start());
    let store = server.real_store().await;
    assert_eq!(store.secret([1; 32]).await.unwrap(), [1; 32]);
    server.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(store.secret([2; 32]).await.unwrap(), [1; 32]);
    server.server.cli(&["DEL", "tw:key"]);
    assert_eq!(store.secret([2; 32]).await.unwrap_err().kind(), "oom");
}

#[tokio::test]
async fn what_was_refused_takes_nothing_of_a_clients_quota() {
    let server = TestServer::start(torwart_tests::RedisServer::start());
    let store = server.store(Arc::new(ManualClock::new(START))).await.with_quota(2);
    server.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    for recipient in 0..5 {
        assert_eq!(store.check(mk_call(1, &[1], &[recipient])).await.unwrap_err().kind(), "oom");
    }
    server.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    outcomes(&store, mk_call(1, &[1], &[1, 2, 3])).await;
    assert_eq!(store.stats().await.unwrap().records, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_takes_only_the_calls_whose_records_it_has() {
    let mut cluster = RedisCluster::builder().full_coverage(false).start();
    let clock = Arc::new(ManualClock::new(START));
    let store = RedisStore::open_by(cluster.url().parse().unwrap(), &mk_options(), clock).unwrap();
    let store = connected(store).await;
    let call = |sender: u32| mk_call_under(&[2, 1], sender, &[sender, sender + 1000, sender + 2000], &[1]);
    for sender in 1..40 {
        assert_eq!(outcomes(&store, call(sender)).await, [New]);
    }
    let is_lost = |call: &Call| {
        let slot = slot_of(&keys::record(&call.current.slot, &call.current.triplets[0]));
        // A name that can be typed, of the same slot.
        let name = (0..).map(|n| format!("key{n}")).find(|name| slot_of(name.as_bytes()) == slot);
        cluster.node_of(&name.unwrap()) == 1
    };
    let lost: Vec<bool> = (1..40).map(|sender| is_lost(&call(sender))).collect();
    assert!(lost.contains(&true) && lost.contains(&false));
    cluster.nodes_mut()[1].kill();
    torwart_tests::eventually("the loss is noticed", || {
        cluster.nodes()[0].cli(&["CLUSTER", "NODES"]).contains("fail")
    });
    for (sender, is_lost) in (1..40).zip(lost) {
        let answer = store.check(call(sender)).await;
        assert_eq!(answer.is_err(), is_lost, "{sender}: {answer:?}");
        if !is_lost {
            assert_eq!(answer.unwrap()[0].outcome, Early);
        }
        let kinds = faults(&store);
        assert!(
            kinds.iter().all(|kind| ["disconnected", "cluster_down", "breaker_open"].contains(kind)),
            "{kinds:?}"
        );
        assert!(kinds.len() <= 3, "{kinds:?}");
    }
}

#[tokio::test]
async fn a_bounce_that_waits_under_an_older_key_goes_on_waiting_while_there_is_no_room_for_it() {
    let server = TestServer::start(torwart_tests::RedisServer::start());
    let clock = Arc::new(ManualClock::new(START));
    let store = server.store(clock.clone()).await.with_quota(2);
    let bounce = |keys: &[u32]| mk_call_under(keys, 0, &[1], &[1]);
    assert_eq!(outcomes(&store, bounce(&[1])).await, [New]);
    clock.advance(100);
    server.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(store.check(bounce(&[2, 1])).await.unwrap_err().kind(), "oom");
    server.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(outcomes(&store, mk_call(7, &[1], &[1])).await, [New], "the last of the quota");
    assert_eq!(outcomes(&store, bounce(&[2, 1])).await, [Early]);
    clock.advance(200);
    assert_eq!(outcomes(&store, bounce(&[2, 1])).await, [Passed]);
}
