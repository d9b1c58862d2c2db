//! What the server sees and holds.

use torwart_policy::model::Greylisting;

use super::*;

/// A number of `INFO`.
fn number(info: &str, name: &str) -> u64 {
    let Some(rest) = info.lines().find_map(|line| line.strip_prefix(name)) else { return 0 };
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_check_is_one_script_and_the_counters_in_one_write() {
    let server = TestServer::start(torwart_tests::RedisServer::start());
    let store = server.real_store().await;
    // The script is there from now on.
    assert_eq!(outcomes(&store, mk_call(1, &[1, 2], &[1])).await, [New]);
    let _: String = tell(&store, &["CONFIG", "RESETSTAT"], None, &[]).await;
    assert_eq!(outcomes(&store, mk_call(2, &[1, 2], &[1, 2, 3])).await, [New, New, New]);
    let info: String = tell(&store, &["INFO", "stats", "commandstats"], None, &[]).await;
    // The reset, our write, and this question.
    assert!(number(&info, "total_reads_processed:") <= 3, "{info}");
    let sent: Vec<_> = ["evalsha", "get", "eval", "script|load", "exists", "ping"]
        .iter()
        .map(|command| number(&info, &format!("cmdstat_{command}:calls=")))
        .collect();
    // The script reads its 6 triplets and 2 known senders.
    assert_eq!(sent, [1, 2 + 8, 0, 0, 0, 0], "{info}");
}

/// What each record of a call takes at most, in bytes: first tries, then what was delivered and is known.
async fn sizes(store: &RedisStore) -> [u64; 2] {
    let mut largest = [0; 2];
    for sender in 1..20 {
        let call = mk_call(sender, &[1, 2], &[1]);
        assert_eq!(outcomes(store, call.clone()).await, [New]);
        for (passed, largest) in largest.iter_mut().enumerate() {
            if passed == 1 {
                store.deliver(call.clone(), true).await.unwrap();
            }
            for name in &record_names(&call.current)[..if passed == 1 { 4 } else { 2 }] {
                let size: u64 = tell(store, &["MEMORY", "USAGE"], Some(name), &[]).await;
                *largest = size.max(*largest);
            }
        }
    }
    largest
}

#[tokio::test]
async fn a_triplet_and_a_known_sender_take_100_bytes_at_most() {
    let server = TestServer::shared();
    let sizes = sizes(&server.real_store().await).await;
    assert!(sizes.iter().all(|size| (50..=100).contains(size)), "{sizes:?}");
}

#[tokio::test]
async fn on_a_node_of_a_cluster_they_take_no_more() {
    let cluster = torwart_tests::RedisCluster::start();
    let url = cluster.url().parse().unwrap();
    let sizes = sizes(&connected(RedisStore::open(url, &mk_options()).unwrap()).await).await;
    assert!(sizes.iter().all(|size| (50..=100).contains(size)), "{sizes:?}");
}

#[tokio::test]
async fn the_server_forgets_each_record_when_it_expires() {
    let server = TestServer::shared();
    let store = server.real_store().await;
    let ttl = async |name: &[u8]| tell::<i64>(&store, &["TTL"], Some(name), &[]).await;
    let close = |found: i64, wanted: i64| (wanted - 30..=wanted).contains(&found);

    let call = mk_call(1, &[1], &[1]);
    assert_eq!(outcomes(&store, call.clone()).await, [New]);
    let names = record_names(&call.current);
    assert!(close(ttl(&names[0]).await, 4 * DAY + 1));
    store.deliver(call.clone(), true).await.unwrap();
    assert!(close(ttl(&names[0]).await, 36 * DAY));
    assert!(close(ttl(&names[1]).await, 36 * DAY));
    assert!(close(ttl(&keys::counter(&call.current.counters[0])).await, 36 * DAY));
    let short = mk_greylisting();
    let short = Params::new(&Greylisting { pass_ttl: Duration::from_secs(9), ..short }, false);
    assert_eq!(outcomes(&store, Call { params: short, ..call }).await, [Passed]);
    assert!(close(ttl(&names[0]).await, 9));

    // A loan and its return leave a record its time.
    let instant = Params::new(&Greylisting { delay: Duration::ZERO, ..mk_greylisting() }, true);
    let bounce = Call { params: instant, ..mk_call(0, &[1, 2], &[1]) };
    assert_eq!(outcomes(&store, bounce.clone()).await, [New]);
    let names = record_names(&bounce.current);
    for name in &names {
        let _: i64 = tell(&store, &["EXPIRE"], Some(name), &[b"5000"]).await;
    }
    assert_eq!(outcomes(&store, bounce.clone()).await, [Passed]);
    assert_eq!(outcomes(&store, bounce.clone()).await, [Early]);
    store.give_back(bounce.clone()).await.unwrap();
    assert_eq!(outcomes(&store, bounce).await, [Passed]);
    for name in &names {
        assert!(close(ttl(name).await, 5000));
    }
}

#[tokio::test]
async fn a_value_that_is_not_ours_is_not_there_and_is_overwritten() {
    let server = TestServer::shared();
    let clock = Arc::new(ManualClock::new(START));
    let store = server.store(clock.clone()).await;
    let call = mk_call(1, &[1], &[1]);
    let name = record_names(&call.current)[0];
    let far = (START + 200 * 365 * DAY).to_string();
    for value in [&b"\x02\x00\x00\x00\x01\x00\x00\x00\x01"[..], b"", b"\x01\x00", &[1; 500]] {
        let _: String = tell(&store, &["SET"], Some(&name), &[value, b"EXAT", far.as_bytes()]).await;
        assert_eq!(outcomes(&store, call.clone()).await, [New], "{value:?}");
        assert_eq!(outcomes(&store, call.clone()).await, [Early], "{value:?}");
    }
    let counter = keys::counter(&call.current.counters[0]);
    for value in [&b"\x02"[..], b"", &[1; 14], &[1; 1000]] {
        let _: String = tell(&store, &["SET"], Some(&counter), &[value, b"EXAT", far.as_bytes()]).await;
        assert_eq!(outcomes(&store, call.clone()).await, [Early], "{value:?}");
        store.deliver(mk_call(2, &[1], &[1]), true).await.unwrap();
        let written: Vec<u8> = tell(&store, &["GET"], Some(&counter), &[]).await;
        assert_eq!(written.len(), 17, "{value:?}: one sender");
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_is_told_them_again() {
    let server = TestServer::start(torwart_tests::RedisServer::start());
    let store = server.real_store().await;
    for sender in 1..4 {
        server.server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(outcomes(&store, mk_call(sender, &[1], &[1])).await, [New]);
        server.server.cli(&["SCRIPT", "FLUSH"]);
        store.deliver(mk_call(sender, &[1], &[1]), true).await.unwrap();
        server.server.cli(&["SCRIPT", "FLUSH"]);
        store.give_back(mk_call(0, &[1], &[1])).await.unwrap();
        assert_eq!(outcomes(&store, mk_call(sender, &[1], &[1])).await, [Passed]);
    }
}

#[tokio::test]
async fn a_key_of_another_length_in_the_store_is_not_taken_for_one() {
    let server = TestServer::start(torwart_tests::RedisServer::start());
    let store = server.real_store().await;
    server.server.cli(&["SET", "tw:key", "short"]);
    let error = store.secret([1; 32]).await.unwrap_err();
    assert_eq!(error.kind(), "unusable");
    assert!(error.to_string().contains("tw:key"), "{error}");
}

#[tokio::test]
async fn a_call_of_a_thousand_recipients_is_one_step() {
    let server = TestServer::shared();
    let store = server.store(Arc::new(ManualClock::new(START))).await;
    let recipients: Vec<u32> = (0..1000).collect();
    let call = mk_call(1, &[1, 2, 3], &recipients);
    assert_eq!(outcomes(&store, call.clone()).await, vec![New; 1000]);
    store.deliver(call.clone(), true).await.unwrap();
    assert_eq!(outcomes(&store, call).await, vec![Passed; 1000]);
    assert_eq!(store.stats().await.unwrap(), Stats { records: 3003, counters: 3 });
}
