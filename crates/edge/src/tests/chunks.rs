//! Messages in chunks (RFC 3030): for verdict and upstream they are messages like any.

use tokio::net::TcpStream;
use torwart_core::DeliveryResult;

use super::harness::{Client, FakeUpstream, Gateway, Heard};

/// A client that has brought the first chunk of its message.
async fn after_a_chunk(upstream: &FakeUpstream) -> (Gateway, Client<TcpStream>) {
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.send("BDAT 6\r\na: b\r\n").await;
    client.expect(250).await;
    (gateway, client)
}

#[tokio::test]
async fn chunks_come_in_and_data_goes_out() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    // a CRLF cut in two, dots that are no end, and no CRLF at the end
    client.send("BDAT 21\r\nSubject: a\r\n\r\n.\r\n..x\r").await;
    assert_eq!(client.expect(250).await, "250 2.0.0 chunk OK\r\n");
    client.send("BDAT 5\r\n\n.\r\ny").await;
    client.expect(250).await;
    client.say("NOOP", 250).await;
    client.send("BDAT 3 LAST\r\nend").await;
    let said = client.expect(250).await;
    let line = gateway.line().await;
    assert_eq!(said, format!("250 2.0.0 Ok: delivered as {}\r\n", line["id"].as_str().unwrap()));
    let message = upstream.message().await;
    assert!(message.ends_with("\r\n\r\n..\r\n...x\r\n..\r\nyend\r\n"), "{message}");
    assert!(message.contains("\tfor <ok@example.org>;"), "{message}");
    assert_eq!(line["size"], "Subject: a\r\n\r\n.\r\n..x\r\n.\r\nyend\r\n".len());
    assert_eq!(gateway.delivery().await.result, DeliveryResult::Delivered);
    assert!(gateway.counts(r#"torwart_smtp_commands_total{class="2xx",verb="bdat"} 3"#));
    assert!(gateway.counts("torwart_messages_total{outcome=\"delivered\"} 1"));
}

#[tokio::test]
async fn a_message_given_up_between_two_chunks_leaves_no_dot_upstream() {
    for give_up in ["RSET", "EHLO again"] {
        let mut upstream = FakeUpstream::obedient().await;
        let (mut gateway, mut client) = after_a_chunk(&upstream).await;
        client.say(give_up, 250).await;
        assert!(upstream.closes_without_message().await);
        let line = gateway.line().await;
        assert_eq!((&line["reason"], &line["code"]), (&"reset".into(), &serde_json::Value::Null));
        // the session goes on, on another connection upstream
        client.say("MAIL FROM:<>", 250).await;
        client.say("RCPT TO:<ok@example.org>", 250).await;
        client.send("BDAT 6 LAST\r\nc: d\r\n").await;
        client.expect(250).await;
        assert!(upstream.message().await.ends_with("c: d\r\n"));
        assert!(gateway.counts("torwart_messages_total{outcome=\"client_gone\"} 1"));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_between_two_chunks_leaves_no_dot_upstream() {
    let mut upstream = FakeUpstream::obedient().await;
    let (mut gateway, client) = after_a_chunk(&upstream).await;
    drop(client);
    assert!(upstream.closes_without_message().await);
    assert_eq!(gateway.line().await["reason"], "client_gone");
    assert!(gateway.no_delivery());
}

#[tokio::test]
async fn chunks_behind_a_refusal_are_dropped_and_the_session_stays_in_step() {
    // refused at RCPT, at DATA by the verdict, at DATA by the upstream
    for (recipient, at_rcpt, first) in [("grey", 450, "554 "), ("nodata", 250, "450 "), ("ok", 250, "451 ")] {
        let upstream = FakeUpstream::start(|line| (line == "DATA").then_some("451 not now")).await;
        let gateway = Gateway::start(&[upstream.address]).await;
        let mut client = gateway.client().await;
        client.say("EHLO client.example", 250).await;
        client
            .send(&format!(
                "MAIL FROM:<>\r\nRCPT TO:<{recipient}@example.org>\r\nBDAT 6\r\nQUIT\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
            ))
            .await;
        client.expect(250).await;
        client.expect(at_rcpt).await;
        let said = client.expect_one_of(&[450, 451, 554]).await;
        assert!(said.starts_with(first), "{recipient}: {said}");
        for _ in 0..2 {
            client.expect_one_of(&[503, 554]).await;
        }
        client.expect(250).await;
    }
}

#[tokio::test]
async fn the_chunk_that_spoils_a_message_ends_it() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.send("BDAT 6\r\na: b\r\nBDAT 4\r\nx\ny\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n").await;
    for code in [250, 550, 503, 503] {
        client.expect(code).await;
    }
    assert!(upstream.closes_without_message().await);
    let line = gateway.line().await;
    assert_eq!((&line["code"], &line["action"]), (&550.into(), &"reject".into()));
    client.say("MAIL FROM:<>", 250).await;
}

#[tokio::test]
async fn an_upstream_that_is_lost_between_two_chunks_is_told_at_the_last() {
    let mut upstream = FakeUpstream::start(|line| (line == ".").then_some("close")).await;
    let (gateway, mut client) = after_a_chunk(&upstream).await;
    client.send("BDAT 0 LAST\r\n").await;
    client.expect(451).await;
    assert!(matches!(upstream.any_message().await.as_str(), text if text.ends_with("a: b\r\n")));
    assert_eq!(upstream.next().await, Heard::Closed);
    assert!(gateway.counts("torwart_outcome_unknown_total 1"));
}

#[tokio::test]
async fn a_drain_waits_for_the_last_chunk() {
    let mut upstream = FakeUpstream::obedient().await;
    let (mut gateway, mut client) = after_a_chunk(&upstream).await;
    gateway.shutdown.cancel();
    client.send("BDAT 6\r\nc: d\r\n").await;
    client.expect(250).await;
    client.send("BDAT 0 LAST\r\n").await;
    client.expect(250).await;
    client.expect(421).await;
    assert!(upstream.message().await.ends_with("a: b\r\nc: d\r\n"));
    gateway.stop().await;
}
