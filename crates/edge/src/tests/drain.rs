//! Going down: no message is cut off whose dot has gone upstream.

use std::time::Duration;

use tokio::net::TcpStream;

use super::harness::{FakeUpstream, Gateway, soon};
use crate::DrainState;

#[tokio::test]
async fn between_transactions_421_and_inside_one_the_end_of_it() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut state = gateway.edge.drain_state();
    let mut idle = gateway.client().await;
    let mut busy = gateway.client().await;
    busy.begin(&["ok"]).await;
    busy.say("DATA", 354).await;
    gateway.shutdown.cancel();
    assert!(idle.expect(421).await.starts_with("421 4.3.2 "));
    assert!(idle.is_closed().await);
    assert_eq!(gateway.line().await["outcome"], "shutdown");
    soon(state.wait_for(|state| *state == DrainState::Draining)).await.unwrap();
    assert!(TcpStream::connect(gateway.address()).await.is_err(), "the listener is closed");
    busy.say("body\r\n.", 250).await;
    busy.expect(421).await;
    assert!(busy.is_closed().await);
    assert!(upstream.message().await.ends_with("body\r\n"));
    assert_eq!(gateway.line().await["reason"], "accepted");
    soon(&mut gateway.running).await.unwrap();
    assert_eq!(*state.borrow(), DrainState::Stopped);
}

#[tokio::test]
async fn a_transaction_that_was_sent_ahead_is_not_begun() {
    for (last, code) in [("body\r\n.\r\n", 250), ("RSET\r\n", 250)] {
        let upstream = FakeUpstream::obedient().await;
        let gateway = Gateway::start(&[upstream.address]).await;
        let mut idle = gateway.client().await;
        let mut busy = gateway.client().await;
        busy.begin(&["ok"]).await;
        if last.starts_with("body") {
            busy.say("DATA", 354).await;
        }
        gateway.shutdown.cancel();
        idle.expect(421).await;
        busy.send(&format!("{last}MAIL FROM:<next@example.com>\r\n")).await;
        busy.expect(code).await;
        busy.expect(421).await;
        assert!(busy.is_closed().await);
    }
}

#[tokio::test]
async fn connections_are_accepted_during_the_delay() {
    let gateway =
        Gateway::start_with(&[], |settings, _| settings.drain_delay = Duration::from_secs(60)).await;
    let mut state = gateway.edge.drain_state();
    gateway.shutdown.cancel();
    soon(state.wait_for(|state| *state == DrainState::Delay)).await.unwrap();
    assert!(state.borrow().is_ready());
    gateway.client().await.say("QUIT", 221).await;
}

#[tokio::test]
async fn after_the_time_limit_an_unfinished_message_is_ended_without_a_dot() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.drain_timeout = Duration::from_millis(1);
    })
    .await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client.send("half a mess").await;
    gateway.shutdown.cancel();
    let reply = client.expect(421).await;
    assert!(reply.starts_with("421 4.3.2 "), "{reply}");
    assert!(client.is_closed().await);
    assert!(upstream.closes_without_message().await);
    let line = gateway.line().await;
    assert_eq!((&line["reason"], &line["code"]), (&"shutdown".into(), &421.into()));
    assert!(reply.contains(line["id"].as_str().unwrap()), "{reply}");
    assert!(gateway.counts("torwart_messages_total{outcome=\"deferred\"} 1"));
    soon(&mut gateway.running).await.unwrap();
}

#[tokio::test]
async fn after_the_time_limit_a_transaction_without_data_is_ended_too() {
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.drain_timeout = Duration::from_millis(1);
    })
    .await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    gateway.shutdown.cancel();
    client.expect(421).await;
    assert_eq!(gateway.line().await["reason"], "shutdown");
    soon(&mut gateway.running).await.unwrap();
}

#[tokio::test]
async fn after_the_time_limit_nobody_waits_for_an_upstream_before_its_dot() {
    for step in ["RCPT", "DATA"] {
        let mut upstream = FakeUpstream::start(match step {
            "RCPT" => |line| line.starts_with("RCPT").then_some("hang"),
            _ => |line| line.starts_with("DATA").then_some("hang"),
        })
        .await;
        let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
            settings.drain_timeout = Duration::from_millis(1);
        })
        .await;
        let mut client = gateway.client().await;
        client.begin(&[]).await;
        client.send("RCPT TO:<ok@example.org>\r\nDATA\r\n").await;
        upstream.hears(step).await;
        gateway.shutdown.cancel();
        if step == "DATA" {
            client.expect(250).await;
        }
        client.expect(421).await;
        assert_eq!(gateway.line().await["reason"], "shutdown");
        soon(&mut gateway.running).await.unwrap();
    }
}

#[tokio::test]
async fn a_dot_that_has_gone_upstream_is_waited_for() {
    let mut upstream = FakeUpstream::start(|line| (line == ".").then_some("hold")).await;
    let gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.drain_timeout = Duration::from_millis(1);
    })
    .await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    let mut undecided = gateway.client().await;
    undecided.begin(&["ok"]).await;
    client.send("body\r\n.\r\n").await;
    upstream.message().await;
    gateway.shutdown.cancel();
    // the order to end everything has reached all sessions, and the time limit is over
    undecided.expect(421).await;
    assert!(!gateway.running.is_finished());
    upstream.release();
    client.expect(250).await;
    client.expect(421).await;
}
