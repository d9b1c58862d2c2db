//! What the verdict is told of a transaction's end: the table of `transaction/report.rs`, against real upstreams.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use torwart_core::{Delivery, DeliveryResult, SoftBounce, TlsMode};

use super::harness::{Answers, FakeUpstream, Gateway};
use DeliveryResult::{Deferred, Delivered, Rejected, Unknown, Unreachable};

/// What the client does after MAIL, and what it hears: RCPT by the local part alone.
type Steps = &'static [(&'static str, u16)];

/// The result, the recipients' local parts and what the upstream had said, if there is to be a report.
type Told = Option<(DeliveryResult, &'static [&'static str], &'static str)>;

const DELIVER: Steps = &[("ok", 250), ("DATA", 354), ("body\r\n.", 250)];
const FAIL_AT_DOT: Steps = &[("ok", 250), ("DATA", 354), ("body\r\n.", 451)];

async fn play(gateway: &Gateway, steps: Steps) {
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    for (step, code) in steps {
        let is_recipient = step.bytes().all(|byte| byte.is_ascii_lowercase());
        let command = if is_recipient { format!("RCPT TO:<{step}@example.org>") } else { (*step).to_owned() };
        client.say(&command, *code).await;
    }
    client.say("QUIT", 221).await;
}

#[track_caller]
fn check(row: &str, told: Vec<Delivery>, expected: Told, upstream: Option<SocketAddr>) {
    let Some((result, recipients, reply)) = expected else {
        assert!(told.is_empty(), "{row}: {told:?}");
        return;
    };
    let [delivery] = told.as_slice() else { panic!("{row}: {} reports", told.len()) };
    let named: Vec<&str> = delivery.recipients.iter().map(|recipient| &*recipient.local).collect();
    assert_eq!((delivery.result, named.as_slice()), (result, recipients), "{row}");
    assert!(delivery.upstream_reply.as_deref().unwrap_or_default().contains(reply), "{row}: {delivery:?}");
    assert_eq!(delivery.upstream.as_deref(), upstream.map(|address| address.to_string()).as_deref(), "{row}");
    assert_eq!(delivery.score.to_bits(), 1.5f32.to_bits(), "{row}");
}

#[tokio::test]
async fn every_end_at_the_upstream_is_told_once_and_as_what_it_was() {
    let at_rcpt: Steps = &[("ok", 451)];
    let table: &[(&str, Answers, Steps, Told)] = &[
        ("delivered", |_| None, DELIVER, Some((Delivered, &["ok"], "250 2.0.0 queued"))),
        // the dot
        (
            "dot 554",
            |line| (line == ".").then_some("554 5.7.1 spam"),
            &[("ok", 250), ("DATA", 354), (".", 554)],
            Some((Rejected, &["ok"], "554 5.7.1 spam")),
        ),
        (
            "dot 452",
            |line| (line == ".").then_some("452 4.3.1 full"),
            &[("ok", 250), ("DATA", 354), (".", 452)],
            Some((Deferred, &["ok"], "452 4.3.1 full")),
        ),
        (
            "dot 421",
            |line| (line == ".").then_some("421 4.3.2 bye"),
            FAIL_AT_DOT,
            Some((Deferred, &["ok"], "421 4.3.2 bye")),
        ),
        (
            "dot 503",
            |line| (line == ".").then_some("503 5.5.1 what"),
            FAIL_AT_DOT,
            Some((Unreachable, &["ok"], "503")),
        ),
        (
            "dot unanswered",
            |line| (line == ".").then_some("close"),
            FAIL_AT_DOT,
            Some((Unknown, &["ok"], "(the connection was closed)")),
        ),
        // DATA
        (
            "DATA 554",
            |line| (line == "DATA").then_some("554 5.5.1 no"),
            &[("ok", 250), ("DATA", 451)],
            Some((Unreachable, &["ok"], "554 5.5.1 no")),
        ),
        (
            "DATA unanswered",
            |line| (line == "DATA").then_some("close"),
            &[("ok", 250), ("DATA", 451)],
            Some((Unreachable, &["ok"], "(the connection was closed)")),
        ),
        // MAIL
        (
            "MAIL 450",
            |line| line.starts_with("MAIL").then_some("450 4.7.1 slower"),
            &[("ok", 450)],
            Some((Deferred, &["ok"], "450 4.7.1 slower")),
        ),
        (
            "MAIL 530",
            |line| line.starts_with("MAIL").then_some("530 5.7.0 TLS first"),
            at_rcpt,
            Some((Unreachable, &["ok"], "530")),
        ),
        ("MAIL 553", |line| line.starts_with("MAIL").then_some("553 5.1.8 no"), &[("ok", 553)], None),
        // RCPT
        (
            "RCPT 450",
            |line| line.starts_with("RCPT").then_some("450 4.2.0 later"),
            &[("ok", 450), ("second", 450), ("RSET", 250)],
            Some((Deferred, &["ok", "second"], "450 4.2.0 later")),
        ),
        (
            "RCPT 501",
            |line| line.starts_with("RCPT").then_some("501 5.5.2 what"),
            at_rcpt,
            Some((Unreachable, &["ok"], "501")),
        ),
        (
            "RCPT 550, and remembered",
            |line| line.starts_with("RCPT").then_some("550 5.1.1 who"),
            &[("ok", 550), ("ok", 550)],
            None,
        ),
        (
            "RCPT 450 for one and 550 for another",
            |line| {
                let later = line.contains("<ok@").then_some("450 4.2.0 later");
                later.or_else(|| line.starts_with("RCPT").then_some("550 5.1.1 who"))
            },
            &[("ok", 450), ("second", 550)],
            Some((Deferred, &["ok"], "450 4.2.0 later")),
        ),
        (
            "RCPT 450 for one, the other is delivered",
            |line| line.contains("<second@").then_some("450 4.2.0 later"),
            &[("second", 450), ("ok", 250), ("DATA", 354), (".", 250)],
            Some((Delivered, &["ok"], "250 2.0.0 queued")),
        ),
        (
            "RCPT 450 for one, the other is deferred at the dot",
            |line| {
                let later = line.contains("<second@").then_some("450 4.2.0 later");
                later.or_else(|| (line == ".").then_some("452 4.3.1 full"))
            },
            &[("ok", 250), ("second", 450), ("DATA", 354), (".", 452)],
            Some((Deferred, &["ok", "second"], "452 4.3.1 full")),
        ),
        (
            "the connection breaks at the second RCPT",
            |line| line.contains("<second@").then_some("close"),
            &[("ok", 250), ("second", 451), ("DATA", 451)],
            Some((Unreachable, &["ok", "second"], "(the connection was closed)")),
        ),
        // opening
        (
            "EHLO and HELO 550",
            |line| (line.starts_with("EHLO") || line.starts_with("HELO")).then_some("550 5.7.1 no"),
            at_rcpt,
            Some((Unreachable, &["ok"], "550 5.7.1 no")),
        ),
        (
            "EHLO 421",
            |line| line.starts_with("EHLO").then_some("421 4.3.2 full"),
            at_rcpt,
            Some((Deferred, &["ok"], "421 4.3.2 full")),
        ),
        // ours or the client's doing
        ("RSET", |_| None, &[("ok", 250), ("RSET", 250)], None),
        ("QUIT", |_| None, &[("ok", 250)], None),
        ("greylisted", |_| None, &[("grey", 450)], None),
        ("greylisted at DATA", |_| None, &[("nodata", 250), ("DATA", 450)], None),
        ("spoiled", |_| None, &[("ok", 250), ("DATA", 354), ("a\0b\r\n.", 550)], None),
        ("no verdict", |_| None, &[("lost", 451)], None),
    ];
    for (row, answers, steps, expected) in table {
        println!("{row}");
        let upstream = FakeUpstream::start(*answers).await;
        let gateway = Gateway::start(&[upstream.address]).await;
        play(&gateway, steps).await;
        check(row, gateway.all_deliveries().await, *expected, Some(upstream.address));
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_told_as_that() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = Gateway::start(&[free]).await;
    play(&gateway, &[("ok", 451), ("second", 451)]).await;
    let expected = Some((Unreachable, &["ok", "second"][..], "connecting to "));
    check("nobody listens", gateway.all_deliveries().await, expected, Some(free));
}

#[tokio::test]
async fn the_end_at_another_class_s_upstream_does_not_hide_the_delivery() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[free, upstream.address]).await;
    play(&gateway, &[("ok", 451), ("other", 250), ("DATA", 354), (".", 250)]).await;
    let expected = Some((Delivered, &["other"][..], "250 2.0.0 queued"));
    check("two classes", gateway.all_deliveries().await, expected, Some(upstream.address));
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_message_is_not_told() {
    let upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client.send("half a mess").await;
    drop(client);
    check("client gone", gateway.all_deliveries().await, None, None);
}

#[tokio::test]
async fn a_refusal_that_is_not_believed_yet_is_told_as_a_deferral() {
    let table: &[(&str, Answers, Steps)] = &[
        ("MAIL", |line| line.starts_with("MAIL").then_some("554 5.7.1 relay denied"), &[("ok", 450)]),
        ("RCPT", |line| line.starts_with("RCPT").then_some("554 5.7.1 relay denied"), &[("ok", 450)]),
        (
            "dot",
            |line| (line == ".").then_some("554 5.7.1 relay denied"),
            &[("ok", 250), ("DATA", 354), (".", 450)],
        ),
    ];
    for (row, answers, steps) in table {
        let upstream = FakeUpstream::start(*answers).await;
        let gateway = Gateway::start_with(&[upstream.address], |_, script| {
            script.change_routes(|route| route.soft_bounce = SoftBounce::UntilFirstDelivery);
        })
        .await;
        play(&gateway, steps).await;
        let expected = Some((Deferred, &["ok"][..], "554 5.7.1 relay denied"));
        check(row, gateway.all_deliveries().await, expected, Some(upstream.address));
    }
}

#[tokio::test]
async fn tls_that_is_not_to_be_had_is_told_as_unreachable() {
    let upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start_with(&[upstream.address], |_, script| {
        script.change_routes(|route| route.tls.mode = TlsMode::Required);
    })
    .await;
    play(&gateway, &[("ok", 451)]).await;
    let expected = Some((Unreachable, &["ok"][..], "STARTTLS is not offered"));
    check("no TLS", gateway.all_deliveries().await, expected, Some(upstream.address));
}

#[tokio::test]
async fn an_upstream_that_is_used_to_its_limit_is_told_as_a_deferral() {
    let upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start_with(&[upstream.address], |settings, script| {
        settings.upstream.busy = Duration::from_millis(1);
        script.change_routes(|route| route.upstreams[0].max_connections = 1);
    })
    .await;
    let mut first = gateway.client().await;
    first.begin(&["ok"]).await;
    play(&gateway, &[("second", 451)]).await;
    first.say("QUIT", 221).await;
    let expected = Some((Deferred, &["second"][..], ""));
    check("busy", gateway.all_deliveries().await, expected, Some(upstream.address));
}

#[tokio::test]
async fn a_message_that_gave_way_is_told_as_a_deferral() {
    let upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start_with(&[upstream.address], |settings, script| {
        settings.upstream.patience = Duration::from_millis(1);
        script.change_routes(|route| route.upstreams[0].max_connections = 1);
    })
    .await;
    let mut slow = gateway.client().await;
    slow.begin(&["ok"]).await;
    slow.say("DATA", 354).await;
    play(&gateway, &[("second", 250)]).await;
    slow.say("the rest\r\n.", 451).await;
    slow.say("QUIT", 221).await;
    let expected = Some((Deferred, &["ok"][..], "(the client was silent and others waited)"));
    check("gave way", gateway.all_deliveries().await, expected, Some(upstream.address));
}
