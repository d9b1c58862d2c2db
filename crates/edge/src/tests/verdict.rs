//! What the verdict says, and what happens when it says nothing.

use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use torwart_core::{ListenerTls, Reason, Reply};

use super::harness::{Client, FakeUpstream, Gateway};

#[tokio::test]
async fn refusals_carry_the_transaction_s_id_and_are_logged() {
    let mut gateway = Gateway::start(&[]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    let grey = client.say("RCPT TO:<grey@example.org>", 450).await;
    let deny = client.say("RCPT TO:<deny@example.org>", 550).await;
    client.say("DATA", 554).await;
    client.say("QUIT", 221).await;
    let line = gateway.line().await;
    let id = line["id"].as_str().unwrap();
    assert_eq!(grey, format!("450 4.2.0 Come back in 300 s (id {id})\r\n"));
    assert_eq!(deny, format!("550 5.7.1 Relaying denied (id {id})\r\n"));
    assert_eq!(
        (&line["action"], &line["code"], &line["reason"]),
        (&"defer".into(), &450.into(), &"greylisted".into())
    );
    assert_eq!(line["recipients"][0]["greylist"], "new");
    assert_eq!(line["recipients"][1]["reason"], "unknown_domain");
    assert_eq!(line["identity"], "network:127.0.0.0/24");
    assert!(gateway.no_delivery());
    assert!(gateway.counts(r#"torwart_smtp_commands_total{class="4xx",verb="rcpt"} 1"#));
}

#[tokio::test]
async fn recipients_that_arrive_together_are_asked_about_together() {
    let gateway = Gateway::start(&[]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    client.send("RCPT TO:<grey@example.org>\r\nRCPT TO:<deny@example.org>\r\n").await;
    client.expect(450).await;
    client.expect(550).await;
    let questions = gateway.script.questions.lock().unwrap();
    let asked: Vec<usize> = questions.iter().map(|question| question.recipients.len()).collect();
    assert_eq!(asked, [2]);
    assert_eq!(questions[0].peer.helo.as_deref(), Some("client.example"));
}

#[tokio::test]
async fn a_lost_verdict_is_451_at_rcpt() {
    let mut gateway = Gateway::start(&[]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    let reply = client.say("RCPT TO:<lost@example.org>", 451).await;
    assert!(reply.starts_with("451 4.3.5 "), "{reply}");
    // it is asked again, not remembered
    client.say("RCPT TO:<grey@example.org>", 450).await;
    client.say("QUIT", 221).await;
    assert_eq!(gateway.line().await["reason"], "verdict_unavailable");
}

#[tokio::test]
async fn a_lost_verdict_does_not_keep_anyone_from_the_banner() {
    let gateway = Gateway::start_with(&[], |_, script| script.unavailable = true).await;
    let mut client = gateway.client().await;
    client.say("QUIT", 221).await;
    // nothing is remembered of an answer that was none
    gateway.client().await.say("QUIT", 221).await;
    assert_eq!(gateway.script.connections_asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_verdict_without_a_route_to_be_had_is_451() {
    let gateway = Gateway::start(&[]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    let reply = client.say("RCPT TO:<ok@example.org>", 451).await;
    assert!(reply.starts_with("451 4.3.5 "), "{reply}");
}

#[tokio::test]
async fn a_recipient_of_another_class_is_sent_away_after_its_own_verdict() {
    let mut first = FakeUpstream::obedient().await;
    let second = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[first.address, second.address]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    client.send("RCPT TO:<ok@a.example>\r\nRCPT TO:<other@b.example>\r\nRCPT TO:<grey@b.example>\r\n").await;
    client.expect(250).await;
    let other = client.expect(452).await;
    assert!(other.starts_with("452 4.5.3 "), "{other}");
    client.expect(450).await;
    client.say("DATA", 354).await;
    client.say(".", 250).await;
    assert!(first.message().await.contains("for <ok@a.example>"));
    let line = gateway.line().await;
    assert_eq!(line["recipients"][1]["reason"], "other_class");
    assert_eq!(line["recipients"][2]["reason"], "greylisted");
    assert_eq!(line["domain_class"], "01010101010101010101010101010101");
}

#[tokio::test]
async fn a_class_whose_recipients_the_upstream_refused_does_not_bind() {
    let first = FakeUpstream::start(|line| line.starts_with("RCPT").then_some("550 5.1.1 unknown")).await;
    let mut second = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[first.address, second.address]).await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    client.send("RCPT TO:<ok@a.example>\r\nRCPT TO:<other@b.example>\r\n").await;
    client.expect(550).await;
    client.expect(250).await;
    client.say("DATA", 354).await;
    client.say(".", 250).await;
    assert!(second.message().await.contains("for <other@b.example>"));
}

#[tokio::test]
async fn the_null_sender_s_deferral_comes_at_data() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["nodata"]).await;
    let reply = client.say("DATA", 450).await;
    assert!(reply.starts_with("450 4.2.0 Not yet (id "), "{reply}");
    client.say("QUIT", 221).await;
    upstream.hears("RCPT").await;
    upstream.hears("RSET").await;
    let line = gateway.line().await;
    assert_eq!((&line["code"], &line["reason"]), (&450.into(), &"greylisted".into()));
    assert!(gateway.no_delivery());
}

#[tokio::test]
async fn a_refused_address_hears_it_at_the_banner() {
    let mut gateway = Gateway::start_with(&[], |_, script| {
        script.refuse_connection = Some((Reply::new(554, (5, 7, 1), "Go away"), Reason::IpRange));
    })
    .await;
    let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
    let reply = client.expect(554).await;
    let line = gateway.line().await;
    assert_eq!((&line["event"], &line["outcome"]), (&"session".into(), &"refused".into()));
    assert_eq!(reply, format!("554 5.7.1 Go away (id {})\r\n", line["id"].as_str().unwrap()));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_answer_for_all_connections_is_not_asked_for_each() {
    let gateway = Gateway::start(&[]).await;
    for _ in 0..20 {
        gateway.client().await.say("QUIT", 221).await;
    }
    let asked = gateway.script.connections_asked.load(Ordering::Relaxed);
    assert!(asked < 20, "{asked} questions for 20 connections");
}

#[tokio::test]
async fn tls_that_is_required_and_cannot_be_had_makes_the_mail_wait() {
    let gateway = Gateway::start_with(&[], |_, script| script.tls = ListenerTls::Require).await;
    let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
    let reply = client.expect(421).await;
    assert!(reply.starts_with("421 4.3.5 "), "{reply}");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn the_new_hostname_is_said_to_new_sessions() {
    let gateway = Gateway::start(&[]).await;
    gateway.edge.set_hostname("mx2.example.net");
    let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
    assert!(client.expect(220).await.starts_with("220 mx2.example.net "));
}
