//! One server.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use torwart_core::Greylist;
use torwart_tests::{RedisServer, eventually};

use super::*;
use crate::store::redis::breaker::Breaker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_missed_at_once_and_used_again_with_all_it_saved() {
    let mut server = RedisServer::builder().persistent().start();
    let asker = Asker::well(&server.url()).await;
    let call = asker.mk_call();
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::New);
    server.kill();
    let error = asker.until("disconnected").await;
    assert!(!matches!(asker.ask().await, Err(StoreError::TimedOut)), "a dead server costs no time: {error}");
    server.start_again();
    asker.until_well().await;
    assert_eq!(asker.ask_about(call).await.unwrap(), Greylist::Early);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_never_there_is_used_when_it_comes() {
    let mut server = RedisServer::start();
    server.kill();
    let asker = Asker::open(&server.url());
    let error = asker.until("disconnected").await;
    assert!(error.to_string().contains("no connection to the store"), "{error}");
    server.start_again();
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_costs_a_few_time_outs_and_then_nothing() {
    let server = RedisServer::start();
    let asker = Asker::well_with(&server.url(), SHORT).await;
    server.signal("STOP");
    for _ in 0..Breaker::FAILURES {
        assert_eq!(asker.ask().await.unwrap_err(), StoreError::TimedOut);
    }
    for _ in 0..1000 {
        let kind = asker.ask().await.unwrap_err().kind();
        assert!(["breaker_open", "disconnected"].contains(&kind), "{kind}");
    }
    server.signal("CONT");
    asker.until_well().await;
}

/// Passes bytes on in both directions; each connection only until it is told to swallow them.
async fn forward(listener: TcpListener, to: SocketAddr, swallow: watch::Receiver<()>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut swallow = swallow.clone();
        swallow.mark_unchanged();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = swallow.changed() => std::future::pending().await,
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_swallows_everything_is_replaced() {
    let server = RedisServer::start();
    let listener = TcpListener::bind((torwart_tests::address(), 0)).await.unwrap();
    let between = listener.local_addr().unwrap();
    let (swallow, told) = watch::channel(());
    tokio::spawn(forward(listener, server.address(), told));
    let asker = Asker::well_with(&format!("redis://{between}"), SHORT).await;
    let connects = asker.connects();
    swallow.send_replace(());
    asker.until("timeout").await;
    asker.until_well().await;
    assert!(asker.connects() > connects);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_when_their_time_is_over_count_as_time_outs() {
    let server = RedisServer::start();
    let asker = Asker::well_with(&server.url(), SHORT).await;
    server.signal("STOP");
    for _ in 0..Breaker::FAILURES {
        assert!(tokio::time::timeout(SHORT * 11 / 20, asker.ask()).await.is_err(), "it does not answer");
    }
    let kind = asker.ask().await.unwrap_err().kind();
    assert!(["breaker_open", "disconnected"].contains(&kind), "{kind}");
    server.signal("CONT");
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_after_a_second_count_as_time_outs_whatever_the_time_limit() {
    let server = RedisServer::start();
    let asker = std::sync::Arc::new(Asker::well_with(&server.url(), Duration::from_secs(10)).await);
    server.signal("STOP");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..Breaker::FAILURES {
        let asker = std::sync::Arc::clone(&asker);
        waiting.spawn(async move { tokio::time::timeout(SHORT * 11 / 10, asker.ask()).await.is_err() });
    }
    assert!(waiting.join_all().await.into_iter().all(|gave_up| gave_up), "it does not answer");
    let kind = asker.ask().await.unwrap_err().kind();
    assert!(["breaker_open", "disconnected"].contains(&kind), "{kind}");
    server.signal("CONT");
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_early_say_nothing_about_the_server_and_leave_nothing_behind() {
    let server = RedisServer::start();
    let asker = Asker::well(&server.url()).await;
    let connects = asker.connects();
    server.signal("STOP");
    for _ in 0..1000 {
        assert!(is_sent(asker.ask()).await);
    }
    server.signal("CONT");
    assert_eq!(asker.ask().await.unwrap(), Greylist::New);
    assert_eq!(asker.connects(), connects);
}

/// Sends it, and waits for no answer.
async fn is_sent(asked: impl Future) -> bool {
    let mut asked = std::pin::pin!(asked);
    std::future::poll_fn(|context| std::task::Poll::Ready(asked.as_mut().poll(context))).await.is_pending()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_too_many_replies_are_owed_is_given_up() {
    let server = RedisServer::start();
    let asker = Asker::well(&server.url()).await;
    let connects = asker.connects();
    server.signal("STOP");
    let mut sent = 0;
    while is_sent(asker.ask()).await {
        sent += 1;
        assert!(sent < 2000, "what is kept for them has no bound");
    }
    server.signal("CONT");
    asker.until_well().await;
    assert!(asker.connects() > connects);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_never_taken_for_anothers() {
    let server = RedisServer::start();
    for n in 0..100 {
        server.cli(&["SET", &format!("k{n}"), &format!("v{n}")]);
    }
    let link = mk_link(&server.url()).await;
    let connects = *link.connects().borrow();
    for round in 0..5 {
        server.signal("STOP");
        for n in 0..50 {
            assert!(is_sent(link.call(get(&format!("k{n}")))).await, "round {round}");
        }
        server.signal("CONT");
        for n in 50..100 {
            assert_eq!(link.call(get(&format!("k{n}"))).await.unwrap(), text(&format!("v{n}")));
        }
    }
    assert_eq!(*link.connects().borrow(), connects, "all on one connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ends_while_nobody_asks_is_replaced_before_anybody_does() {
    let server = RedisServer::start();
    let link = mk_link(&server.url()).await;
    let mut connects = link.connects();
    let before = *connects.borrow_and_update();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    tokio::time::timeout(PATIENCE, connects.wait_for(|count| *count > before)).await.unwrap().unwrap();
    assert_eq!(link.call(get("a")).await.unwrap(), Value::Nil);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_dropped_leaves_no_connection_and_no_task() {
    let mut server = RedisServer::start();
    let link = mk_link(&server.url()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks() > 0);
    assert!(server.cli(&["CLIENT", "LIST"]).contains("name=torwart"));
    drop(link);
    eventually("it has hung up", || !server.cli(&["CLIENT", "LIST"]).contains("name=torwart"));
    server.kill();
    let link = mk_link_to(&server.url());
    assert_eq!(link.call(get("a")).await.unwrap_err().kind(), "disconnected");
    drop(link);
    eventually("no task is left", || tasks() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_emptied_starts_from_nothing_and_nobody_notices() {
    let server = RedisServer::start();
    let asker = Asker::well(&server.url()).await;
    let call = asker.mk_call();
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::New);
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::Early);
    server.cli(&["FLUSHALL"]);
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::New);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(asker.ask_about(call).await.unwrap(), Greylist::Early, "scripts are given again");
}

/// It saves nothing: records, scripts, the store's key and the connection are lost together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_restarted_empty_starts_from_nothing_with_the_key_it_is_given() {
    let mut server = RedisServer::start();
    let asker = Asker::well(&server.url()).await;
    let call = asker.mk_call();
    asker.store.deliver(call.clone(), true).await.unwrap();
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::Passed);
    assert_eq!(asker.store.secret([1; 32]).await.unwrap(), [1; 32]);
    server.kill();
    asker.until("disconnected").await;
    server.start_again();
    asker.until_well().await;
    assert_eq!(asker.store.secret([2; 32]).await.unwrap(), [2; 32], "whoever comes first gives it one");
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::New);
    assert_eq!(asker.ask_about(call.clone()).await.unwrap(), Greylist::Early);
    asker.store.deliver(call.clone(), true).await.unwrap();
    assert_eq!(asker.ask_about(call).await.unwrap(), Greylist::Passed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_a_replica_is_left_until_it_is_a_primary_again() {
    let (other, server) = (RedisServer::start(), RedisServer::start());
    let asker = Asker::well(&server.url()).await;
    let (ip, port) = (other.address().ip().to_string(), other.address().port().to_string());
    server.cli(&["REPLICAOF", &ip, &port]);
    asker.until("readonly").await;
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    asker.until_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_still_loads_what_it_saved_is_waited_for() {
    // 2 ms for each key, and a look at its clients after each few.
    let slow =
        ["enable-debug-command yes", "key-load-delay 2000", "loading-process-events-interval-bytes 1024"];
    let builder = slow.into_iter().fold(RedisServer::builder(), torwart_tests::RedisServerBuilder::config);
    let mut server = builder.start();
    let asker = Asker::well(&server.url()).await;
    server.cli(&["DEBUG", "POPULATE", "1000"]);
    assert_eq!(server.cli(&["SAVE"]), "OK");
    server.kill();
    asker.until("disconnected").await;
    server.launch_again();
    asker.until("loading").await;
    server.wait_ready();
    asker.until_well().await;
}
