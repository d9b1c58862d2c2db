//! What reaches the upstream, and what the client hears of it.

use torwart_core::DeliveryResult;

use super::harness::{FakeUpstream, Gateway, Heard};

const MESSAGE: &str = "From: a\r\nMessage-ID: <1@example.com>\r\n\r\nhello\r\n..dot\r\n";

#[tokio::test]
async fn a_message_goes_upstream_before_the_client_hears_250() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    client.send("MAIL FROM:<alice@example.com> SIZE=70\r\nRCPT TO:<ok@Example.org>\r\nDATA\r\n").await;
    for code in [250, 250, 354] {
        client.expect(code).await;
    }
    client.send(&format!("{MESSAGE}.\r\n")).await;
    let reply = client.expect(250).await;
    client.say("QUIT", 221).await;

    let message = upstream.message().await;
    let line = gateway.line().await;
    let id = line["id"].as_str().unwrap();
    assert_eq!(reply, format!("250 2.0.0 Ok: delivered as {id}\r\n"));
    let (ours, theirs) = message.split_at(message.find("From: a").unwrap());
    assert_eq!(theirs, MESSAGE);
    assert!(
        ours.starts_with("Received: from client.example (unknown [127.0.0.1])\r\n\tby mx.example.net"),
        "{ours}"
    );
    assert!(ours.contains(&format!("with ESMTP id {id}\r\n\tfor <ok@Example.org>;\r\n")), "{ours}");
    assert!(ours.ends_with(&format!("X-Torwart-Id: {id}\r\n")), "{ours}");

    assert_eq!(line["event"], "transaction");
    assert_eq!(
        (&line["action"], &line["code"], &line["reason"]),
        (&"accept".into(), &250.into(), &"accepted".into())
    );
    assert_eq!(line["from"], "alice@example.com");
    assert_eq!(line["message_id"], "<1@example.com>");
    // a stuffing dot is no part of the message
    assert_eq!(line["size"], MESSAGE.len() - 1);
    assert_eq!(line["upstream_reply"], "250 2.0.0 queued as 42");
    assert_eq!(line["recipients"][0]["to"], "ok@Example.org");
    assert_eq!(line["recipients"][0]["greylist"], "passed");
    let delivery = gateway.delivery().await;
    assert_eq!(delivery.result, DeliveryResult::Delivered);
    assert_eq!(delivery.recipients.len(), 1);
    assert!(gateway.counts("torwart_messages_total{outcome=\"delivered\"} 1"));
    assert!(gateway.counts(&format!("torwart_message_bytes_total {}", MESSAGE.len() - 1)));
}

#[tokio::test]
async fn two_recipients_are_not_named_in_received() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok", "ok2"]).await;
    client.say("DATA", 354).await;
    client.say(".", 250).await;
    let message = upstream.message().await;
    assert!(!message.contains("for <"), "{message}");
}

#[tokio::test]
async fn one_session_brings_many_messages_over_one_upstream_connection() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    for number in 0..3 {
        client.say("MAIL FROM:<>", 250).await;
        client.say("RCPT TO:<ok@example.org>", 250).await;
        client.say("DATA", 354).await;
        client.say(&format!("number {number}\r\n."), 250).await;
        assert!(upstream.message().await.ends_with(&format!("number {number}\r\n")));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_before_its_dot_leaves_no_dot_upstream() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client.send("Subject: half\r\n\r\nhalf a mess").await;
    drop(client);
    assert!(upstream.closes_without_message().await);
    let line = gateway.line().await;
    assert_eq!(
        (&line["reason"], &line["action"], &line["code"]),
        (&"client_gone".into(), &"defer".into(), &serde_json::Value::Null)
    );
    assert!(gateway.no_delivery());
    assert!(gateway.counts("torwart_messages_total{outcome=\"client_gone\"} 1"));
}

#[tokio::test]
async fn a_client_that_goes_away_after_its_dot_is_still_served() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client.send("body\r\n.\r\n").await;
    drop(client);
    assert!(upstream.message().await.ends_with("body\r\n"));
    assert_eq!(gateway.line().await["reason"], "accepted");
    assert_eq!(gateway.delivery().await.result, DeliveryResult::Delivered);
}

#[tokio::test]
async fn the_upstream_s_word_on_a_recipient_is_passed_on_in_our_text() {
    let upstream = FakeUpstream::start(|line| {
        line.contains("nobody").then_some("550 5.1.1 host7.internal: no such user")
    });
    let upstream = upstream.await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    let reply = client.say("RCPT TO:<nobody@example.org>", 550).await;
    assert!(reply.starts_with("550 5.1.1 ") && !reply.contains("host7"), "{reply}");
    client.say("RCPT TO:<ok@example.org>", 250).await;
    client.say("DATA", 354).await;
    client.say(".", 250).await;
    let line = gateway.line().await;
    assert_eq!(line["recipients"][0]["reason"], "upstream_rejected");
    assert_eq!(line["recipients"][1]["code"], 250);
    assert_eq!(gateway.delivery().await.recipients.len(), 1);
}

#[tokio::test]
async fn each_upstream_failure_has_its_reply() {
    let table: &[(super::harness::Answers, u16, &str, Option<DeliveryResult>)] = &[
        (
            |line| (line == ".").then_some("554 5.7.1 spam"),
            554,
            "upstream_rejected",
            Some(DeliveryResult::Rejected),
        ),
        (
            |line| (line == ".").then_some("452 4.3.1 full"),
            4,
            "upstream_deferred",
            Some(DeliveryResult::Deferred),
        ),
        (
            |line| (line == ".").then_some("close"),
            451,
            "upstream_outcome_unknown",
            Some(DeliveryResult::Unknown),
        ),
    ];
    for (answers, code, reason, result) in table {
        let upstream = FakeUpstream::start(*answers).await;
        let mut gateway = Gateway::start(&[upstream.address]).await;
        let mut client = gateway.client().await;
        client.begin(&["ok"]).await;
        client.say("DATA", 354).await;
        let reply = client.say("body\r\n.", *code).await;
        let line = gateway.line().await;
        assert!(reply.contains(&format!("(id {})", line["id"].as_str().unwrap())), "{reply}");
        assert_eq!(line["reason"], *reason);
        assert_eq!(Some(gateway.delivery().await.result), *result);
        let unknown = u8::from(*reason == "upstream_outcome_unknown");
        assert!(gateway.counts(&format!("torwart_outcome_unknown_total {unknown}")), "{reason}");
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_data_is_a_deferral() {
    let upstream = FakeUpstream::start(|line| (line == "DATA").then_some("554 5.5.1 no")).await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 451).await;
    let line = gateway.line().await;
    assert_eq!((&line["code"], &line["action"]), (&451.into(), &"defer".into()));
    client.say("MAIL FROM:<>", 250).await;
}

#[tokio::test]
async fn what_is_not_fit_to_be_delivered_never_gets_a_dot() {
    let long = format!("{}\r\n", "x".repeat(200));
    let table = [
        ("small", long.as_str(), 552, "message_too_large"),
        ("ok", "a\nb\r\n", 550, "bare_newline"),
        ("ok", "a\rb\r\n", 550, "bare_newline"),
        ("ok", "a\0b\r\n", 550, "bare_newline"),
    ];
    for (recipient, body, code, reason) in table {
        let mut upstream = FakeUpstream::obedient().await;
        let mut gateway = Gateway::start(&[upstream.address]).await;
        let mut client = gateway.client().await;
        client.begin(&[recipient]).await;
        client.say("DATA", 354).await;
        client.say(&format!("{body}."), code).await;
        assert!(upstream.closes_without_message().await, "{body:?}");
        assert_eq!(gateway.line().await["reason"], reason, "{body:?}");
        assert!(gateway.no_delivery(), "{body:?}");
        client.say("MAIL FROM:<>", 250).await;
    }
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    let body: String = (0..40_000)
        .map(|number| format!("line {number} of a message that is larger than any buffer\r\n"))
        .collect();
    client.send(&body).await;
    client.say(".", 250).await;
    assert!(upstream.message().await.ends_with(&body));
}

#[tokio::test]
async fn a_given_up_transaction_frees_the_upstream() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("RSET", 250).await;
    let line = gateway.line().await;
    assert_eq!((&line["reason"], &line["code"]), (&"reset".into(), &serde_json::Value::Null));
    upstream.hears("RSET").await;
    client.say("MAIL FROM:<>", 250).await;
    client.say("RCPT TO:<ok@example.org>", 250).await;
    client.say("DATA", 354).await;
    client.say(".", 250).await;
    assert!(matches!(upstream.message().await.as_str(), text if text.starts_with("Received: ")));
}

#[tokio::test]
async fn no_upstream_is_451_and_costs_the_client_nothing_else() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut gateway = Gateway::start(&[free]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    let reply = client.say("RCPT TO:<ok@example.org>", 451).await;
    assert!(reply.starts_with("451 4.4.1 "), "{reply}");
    client.say("QUIT", 221).await;
    let line = gateway.line().await;
    assert_eq!((&line["reason"], &line["code"]), (&"upstream_unreachable".into(), &451.into()));
}

#[tokio::test]
async fn a_recipient_that_the_upstream_did_not_know_is_not_asked_about_again() {
    let mut upstream =
        FakeUpstream::start(|line| line.contains("<nobody@").then_some("550 5.1.1 no such user")).await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    for _ in 0..2 {
        let mut client = gateway.client().await;
        client.say("EHLO client.example", 250).await;
        client.say("MAIL FROM:<alice@example.com>", 250).await;
        let reply = client.say("RCPT TO:<nobody@example.org>", 550).await;
        assert!(reply.starts_with("550 5.1.1 Recipient refused by the mail server (id "), "{reply}");
        client.say("QUIT", 221).await;
    }
    assert_eq!(gateway.line().await["upstream_reply"], "550 5.1.1 no such user");
    assert_eq!(gateway.line().await["upstream_reply"], "(remembered) 550 5.1.1 no such user");
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    upstream.hears("RCPT TO:<nobody@").await;
    loop {
        match upstream.next().await {
            Heard::Command(line) if line.starts_with("RCPT TO:<ok@") => break,
            Heard::Command(line) => assert!(!line.contains("nobody"), "{line}"),
            Heard::Closed | Heard::Message(_) => {}
        }
    }
}
