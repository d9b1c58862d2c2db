//! A 421 inside a transaction: it carries the id, and the log tells why it was said.

use std::time::Duration;

use serde_json::Value;

use super::harness::{Client, FakeUpstream, Gateway};

/// The log's line is what the 421 said.
fn check(line: &Value, reply: &str, reason: &str) {
    assert!(reply.contains(&format!("(id {})", line["id"].as_str().unwrap())), "{reply}");
    assert_eq!(
        (&line["action"], &line["code"], &line["reason"]),
        (&"defer".into(), &421.into(), &reason.into())
    );
}

#[tokio::test]
async fn recipients_behind_the_error_limit_were_not_answered() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    let refused = "RCPT TO:<deny@example.org>\r\n".repeat(25);
    client.send(&format!("{refused}RCPT TO:<ok2@example.org>\r\n")).await;
    for _ in 0..20 {
        client.expect(550).await;
    }
    let reply = client.expect(421).await;
    assert!(client.is_closed().await);
    let line = gateway.line().await;
    check(&line, &reply, "too_many_errors");
    assert_eq!(line["recipients"].as_array().unwrap().len(), 21);
    upstream.hears("RSET").await;
}

#[tokio::test]
async fn too_many_commands_inside_a_transaction_are_told_as_that() {
    let mut gateway = Gateway::start_with(&[], |settings, _| settings.limits.idle_commands = 2).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    client.say("RCPT TO:<grey@example.org>", 450).await;
    client.say("NOOP", 250).await;
    let reply = client.say("NOOP", 421).await;
    check(&gateway.line().await, &reply, "too_many_commands");
}

async fn in_data(gateway: &Gateway) -> Client<tokio::net::TcpStream> {
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client
}

#[tokio::test]
async fn an_endless_message_is_told_as_too_large() {
    let upstream = FakeUpstream::obedient().await;
    let mut gateway =
        Gateway::start_with(&[upstream.address], |settings, _| settings.max_message_size = 1000).await;
    let mut client = in_data(&gateway).await;
    client.send(&"endless\r\n".repeat(8000)).await;
    let reply = client.expect(421).await;
    check(&gateway.line().await, &reply, "message_too_large");
    assert!(gateway.counts("torwart_messages_total{outcome=\"deferred\"} 1"));
}

#[tokio::test]
async fn a_message_that_stops_is_told_as_a_timeout() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.limits.idle_data = Duration::from_millis(1);
    })
    .await;
    let mut client = in_data(&gateway).await;
    let reply = client.expect(421).await;
    assert!(reply.starts_with("421 4.4.2 "), "{reply}");
    check(&gateway.line().await, &reply, "timeout");
    assert!(gateway.counts("torwart_messages_total{outcome=\"deferred\"} 1"));
    assert!(upstream.closes_without_message().await);
}

#[tokio::test]
async fn who_says_quit_before_the_message_has_heard_no_last_word() {
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("QUIT", 221).await;
    let line = gateway.line().await;
    assert_eq!((&line["reason"], &line["code"]), (&"client_gone".into(), &Value::Null));
}
