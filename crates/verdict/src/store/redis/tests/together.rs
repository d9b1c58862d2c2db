//! Several processes with one server, and one process with several servers.

use torwart_tests::RedisCluster;

use super::*;

#[tokio::test]
async fn what_one_process_writes_another_reads() {
    let server = TestServer::shared();
    let clock = Arc::new(ManualClock::new(START));
    let [one, two] = server.two_stores(clock.clone()).await;
    assert_eq!(outcomes(&one, mk_call(1, &[1], &[1])).await, [New]);
    clock.advance(299);
    assert_eq!(outcomes(&two, mk_call(1, &[1], &[1])).await, [Early]);
    clock.advance(1);
    assert_eq!(outcomes(&two, mk_call(1, &[1], &[1])).await, [Passed]);
    two.deliver(mk_call(1, &[1], &[1]), true).await.unwrap();
    assert_eq!(outcomes(&one, mk_call(1, &[1], &[2])).await, [Known]);
    assert_eq!(one.secret([1; 32]).await.unwrap(), two.secret([2; 32]).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_bounces_at_two_processes_under_two_keys_exactly_one_passes() {
    let server = TestServer::shared();
    let clock = Arc::new(ManualClock::new(START));
    let [one, two] = server.two_stores(clock.clone()).await.map(Arc::new);
    for round in 1..20 {
        assert_eq!(outcomes(&one, mk_call_under(&[1], 0, &[1], &[round])).await, [New]);
        clock.advance(300);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20 {
            let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
            tasks.spawn(async move { outcomes(&store, mk_call_under(&[2, 1], 0, &[1], &[round])).await });
        }
        let all = tasks.join_all().await;
        assert_eq!(all.iter().filter(|answer| answer[..] == [Passed]).count(), 1, "{all:?}");
    }
}

#[tokio::test]
async fn every_step_works_over_a_cluster_whatever_nodes_its_keys_are_on() {
    let cluster = RedisCluster::start();
    let clock = Arc::new(ManualClock::new(START));
    let store = RedisStore::open_by(cluster.url().parse().unwrap(), &mk_options(), clock.clone()).unwrap();
    let store = connected(store).await;
    for sender in 1..=40 {
        let call = |recipients: &[u32]| mk_call(sender, &[sender, 100 + sender], recipients);
        assert_eq!(outcomes(&store, call(&[1, 2])).await, [New, New]);
        clock.advance(300);
        assert_eq!(outcomes(&store, call(&[2, 3])).await, [Passed, Passed]);
        store.deliver(call(&[2, 3]), true).await.unwrap();
        assert_eq!(outcomes(&store, call(&[9])).await, [Known]);
        for other in 1..3 {
            clock.advance(HOUR);
            store.deliver(mk_call(1000 * sender + other, &[sender], &[1]), true).await.unwrap();
        }
        assert_eq!(outcomes(&store, mk_call(1000 * sender, &[sender], &[1])).await, [Auto]);
        let rotated = |recipients: &[u32]| mk_call_under(&[2, 1], sender, &[sender], recipients);
        assert_eq!(outcomes(&store, rotated(&[2])).await, [Passed]);
        store.deliver(rotated(&[5]), true).await.unwrap();
        store.revoke(mk_revocation(sender, &[sender, 100 + sender])).await.unwrap();
        assert_eq!(outcomes(&store, call(&[9])).await, [New]);
        let bounce = |keys: &[u32]| mk_call_under(keys, 0, &[sender], &[1]);
        assert_eq!(outcomes(&store, bounce(&[1])).await, [New]);
        clock.advance(300);
        assert_eq!(outcomes(&store, bounce(&[2, 1])).await, [Passed]);
        store.give_back(bounce(&[2, 1])).await.unwrap();
        assert_eq!(outcomes(&store, bounce(&[2, 1])).await, [Passed]);
        store.deliver(bounce(&[2, 1]), false).await.unwrap();
        assert_eq!(outcomes(&store, bounce(&[2, 1])).await, [New]);
    }
    assert_eq!(store.secret([1; 32]).await.unwrap(), store.secret([2; 32]).await.unwrap());
    for node in cluster.nodes() {
        let size: u32 = node.cli(&["DBSIZE"]).trim().parse().unwrap();
        assert!(size > 50, "{size} keys");
    }
}
