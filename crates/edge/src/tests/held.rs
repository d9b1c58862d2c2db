//! Messages that wait for the verdict's word.

use std::future::poll_fn;
use std::time::Duration;

use torwart_core::{
    Action, BodyPart, CheckOutcome, CheckResult, DeliveryResult, MessageAnswer, MessageBody, MessageQuestion,
    Reason, Reply, Revision, Unavailable, UnavailableKind,
};

use super::harness::{FakeUpstream, Gateway, Heard, Script, soon};

const BODY: &str = "X-Torwart-Score: 0\r\nAuthentication-Results: mx.example.net; spf=pass\r\nX-Spam-Level: 1\r\nSubject: hello\r\n\r\n..dot\r\nX-Torwart-Id: body\r\n";

/// The verdict: the message's first line says what becomes of it.
pub(super) async fn answer(
    script: &Script,
    question: MessageQuestion,
    mut body: Box<dyn MessageBody>,
) -> Result<MessageAnswer, Unavailable> {
    let gone = || Unavailable::new(UnavailableKind::Unanswered, "gone");
    let mut text = Vec::new();
    let size = loop {
        match poll_fn(|context| body.poll_next(context)).await {
            Some(BodyPart::Chunk(chunk)) if chunk.starts_with(b"X: early") => {
                return Ok(message_answer(Action::Reject));
            }
            Some(BodyPart::Chunk(chunk)) if chunk.starts_with(b"X: lost") => return Err(gone()),
            Some(BodyPart::Chunk(chunk)) => {
                assert!(chunk.len() <= BodyPart::LONGEST_CHUNK);
                text.extend_from_slice(&chunk);
            }
            Some(BodyPart::End { size }) => break size,
            None => return Err(gone()),
        }
    };
    assert_eq!(size, text.len() as u64);
    let wish = text.split(|byte| *byte == b'\r').next().unwrap_or_default().to_vec();
    script.messages.lock().unwrap().push((question, text));
    match wish.as_slice() {
        b"X: hang" => std::future::pending().await,
        b"X: wait" => script.go_on.notified().await,
        b"X: panic" => panic!("the verdict failed"),
        _ => {}
    }
    let mut answer = message_answer(match wish.as_slice() {
        b"X: reject" => Action::Reject,
        b"X: defer" => Action::Defer,
        _ => Action::Accept,
    });
    if wish == b"X: tag" {
        answer.score = 6.5;
        answer.add_fields =
            vec!["Authentication-Results: mx.example.net; none".into(), "X-Torwart-Score: 6.5".into()];
        answer.remove_fields = vec!["X-Spam*".into()];
        answer.remove_authserv_id = Some("other.example.net".into());
    }
    Ok(answer)
}

fn message_answer(action: Action) -> MessageAnswer {
    let reply = match action {
        Action::Accept => None,
        Action::Defer => Some(Reply::new(450, (4, 7, 1), "Not now")),
        Action::Reject => Some(Reply::new(550, (5, 7, 1), "Not here")),
    };
    MessageAnswer {
        action,
        reply,
        reason: if action == Action::Accept { Reason::Accepted } else { Reason::Score },
        monitored: None,
        score: 2.5,
        checks: vec![CheckResult {
            name: "scanner/test".into(),
            result: CheckOutcome::Clean,
            score: 1.0,
            detail: "seen".into(),
            milliseconds: 3,
        }],
        add_fields: Vec::new(),
        remove_fields: Vec::new(),
        remove_authserv_id: None,
        revision: Revision("r2".into()),
    }
}

/// Up to our 354.
async fn begin(gateway: &Gateway) -> super::harness::Client<tokio::net::TcpStream> {
    let mut client = gateway.client().await;
    client.begin(&["held"]).await;
    client.say("DATA", 354).await;
    client
}

#[tokio::test]
async fn a_held_message_goes_upstream_after_the_verdict_s_word_and_no_byte_before() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = begin(&gateway).await;
    upstream.hears("RCPT").await;
    client.send(&format!("X: wait\r\n{BODY}.\r\n")).await;
    while gateway.script.messages.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    gateway.script.go_on.notify_one();
    client.expect(250).await;
    assert_eq!(upstream.next().await, Heard::Command("DATA".to_owned()), "nothing before");
    let message = upstream.message().await;
    let line = gateway.line().await;
    let id = line["id"].as_str().unwrap();
    let (ours, theirs) = message.split_at(message.find("X: wait").unwrap());
    assert!(ours.starts_with("Received: from client.example"), "{ours}");
    assert!(ours.ends_with(&format!(" +0000\r\nX-Torwart-Id: {id}\r\n")), "{ours}");
    let kept = "X: wait\r\nX-Spam-Level: 1\r\nSubject: hello\r\n\r\n..dot\r\nX-Torwart-Id: body\r\n";
    assert_eq!(theirs, kept);
    assert_eq!(
        (&line["reason"], &line["score"], &line["revision"]),
        (&"accepted".into(), &2.5.into(), &"r2".into())
    );
    assert_eq!(line["checks"][0]["name"], "scanner/test");
    assert_eq!(line["size"], "X: wait\r\n".len() + BODY.len() - 1);
    let (question, text) = gateway.script.messages.lock().unwrap().remove(0);
    assert_eq!(question.recipients[0].to_string(), "held@example.org");
    assert_eq!(String::from_utf8(text).unwrap(), format!("X: wait\r\n{}", BODY.replace("..dot", ".dot")));
    let delivery = gateway.delivery().await;
    assert_eq!((delivery.result, delivery.score), (DeliveryResult::Delivered, 2.5));
    assert!(gateway.counts("torwart_spool_bytes 0"));
}

#[tokio::test]
async fn what_streams_loses_forged_fields_too() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    for byte in BODY.as_bytes() {
        client.send(std::str::from_utf8(&[*byte]).unwrap()).await;
    }
    client.say(".", 250).await;
    let message = upstream.message().await;
    assert!(
        message.ends_with("X-Spam-Level: 1\r\nSubject: hello\r\n\r\n..dot\r\nX-Torwart-Id: body\r\n"),
        "{message}"
    );
    assert_eq!(message.matches("X-Torwart-Id: ").count(), 2, "{message}");
    assert!(!message.contains("spf=pass"), "{message}");

    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client.say("Subject: x\r\nAuthentication-Results:\r\n.", 250).await;
    let message = upstream.message().await;
    assert!(
        message.ends_with("\r\nSubject: x\r\nAuthentication-Results:\r\n"),
        "what was held back: {message}"
    );

    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client.say(" continued\r\n.", 250).await;
    let message = upstream.message().await;
    assert!(message.ends_with("\r\n\r\n continued\r\n"), "no field of ours goes on: {message}");
}

#[tokio::test]
async fn the_verdict_s_fields_go_on_top_and_what_it_names_goes() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = begin(&gateway).await;
    let other = "authentication-results: (x) OTHER.example.net 1; none\r\n";
    client.say(&format!("X: tag\r\n{other}{BODY}."), 250).await;
    let message = upstream.message().await;
    let names: Vec<&str> = message
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with('\t'))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    let expected = ["Received", "Authentication-Results", "X-Torwart-Id", "X-Torwart-Score", "X", "Subject"];
    assert_eq!(names, expected, "{message}");
}

#[tokio::test]
async fn a_refused_message_is_refused_at_its_dot_and_the_upstream_is_used_again() {
    for (wish, code, action) in [("reject", 550, "reject"), ("defer", 450, "defer")] {
        let mut upstream = FakeUpstream::obedient().await;
        let mut gateway = Gateway::start(&[upstream.address]).await;
        let mut client = begin(&gateway).await;
        let reply = client.say(&format!("X: {wish}\r\n\r\nbody\r\n."), code).await;
        assert!(reply.contains(" (id "), "{reply}");
        let line = gateway.line().await;
        assert_eq!((&line["reason"], &line["action"]), (&"score".into(), &action.into()));
        upstream.hears("RSET").await;
        client.say("MAIL FROM:<>", 250).await;
        client.say("RCPT TO:<held@example.org>", 250).await;
        client.say("DATA", 354).await;
        client.say("body\r\n.", 250).await;
        // it fails if the connection was closed
        assert!(upstream.message().await.ends_with("body\r\n"));
        assert_eq!(gateway.delivery().await.recipients.len(), 1, "nothing is reported of the first");
    }
}

#[tokio::test]
async fn a_word_before_the_end_is_heard_if_it_refuses() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = begin(&gateway).await;
    client.send(&format!("X: early\r\n{}", "x\r\n".repeat(100_000))).await;
    client.say(".", 550).await;
    assert_eq!(gateway.line().await["reason"], "score");
    upstream.hears("RSET").await;
}

#[tokio::test]
async fn without_a_verdict_the_message_waits_at_its_sender() {
    for body in [
        "X: lost\r\n.".to_owned(),
        format!("X: lost\r\n{}.", "x\r\n".repeat(100_000)),
        "X: panic\r\n.".to_owned(),
    ] {
        let mut upstream = FakeUpstream::obedient().await;
        let mut gateway = Gateway::start(&[upstream.address]).await;
        let mut client = begin(&gateway).await;
        let reply = client.say(&body, 451).await;
        assert!(reply.starts_with("451 4.3.5 "), "{reply}");
        assert_eq!(gateway.line().await["reason"], "verdict_unavailable");
        upstream.hears("RSET").await;
        assert!(gateway.no_delivery());
        client.say("MAIL FROM:<>", 250).await;
    }
}

#[tokio::test]
async fn an_upstream_that_went_away_is_told_all_again() {
    // closes at the first NOOP: the connection is gone while the message is held
    let mut upstream = FakeUpstream::start(|line| (line == "NOOP").then_some("close")).await;
    let gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.upstream.noop = Duration::from_millis(20);
    })
    .await;
    let mut client = begin(&gateway).await;
    client.send("X: wait\r\nhello\r\n").await;
    upstream.hears("NOOP").await;
    assert_eq!(upstream.next().await, Heard::Closed);
    gateway.script.go_on.notify_one();
    client.say(".", 250).await;
    assert_eq!(upstream.next().await, Heard::Command("EHLO mx.example.net".to_owned()));
    upstream.hears("MAIL FROM:<alice@example.com>").await;
    upstream.hears("RCPT TO:<held@example.org>").await;
    assert!(upstream.message().await.ends_with("X: wait\r\nhello\r\n"));
}

#[tokio::test]
async fn an_upstream_that_is_found_gone_at_data_is_told_all_again_once() {
    for (answers, code) in [
        ((|line| (line == "DATA").then_some("421 4.4.2 timeout")) as super::harness::Answers, 451),
        (|line| (line == "DATA").then_some("close"), 451),
        (|line| (line == "DATA").then_some("554 5.5.1 no"), 451),
    ] {
        let mut upstream = FakeUpstream::start(answers).await;
        let mut gateway = Gateway::start(&[upstream.address]).await;
        let mut client = begin(&gateway).await;
        client.say("hello\r\n.", code).await;
        let line = gateway.line().await;
        let reason = if line["upstream_reply"].as_str().unwrap_or_default().starts_with("554") {
            "upstream_deferred"
        } else {
            "upstream_unreachable"
        };
        assert_eq!(line["reason"], reason);
        let mut begun = 0;
        gateway.stop().await;
        drop(client);
        while let Ok(heard) = upstream.try_next() {
            begun += u32::from(matches!(heard, Heard::Command(line) if line.starts_with("MAIL")));
        }
        assert_eq!(begun, if reason == "upstream_deferred" { 1 } else { 2 });
    }
}

#[tokio::test]
async fn another_answer_than_before_is_a_deferral() {
    static SEEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let upstream = FakeUpstream::start(|line| match line {
        "NOOP" => Some("421 4.4.2 bye"),
        line if line.starts_with("RCPT") => {
            let seen = SEEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            (seen > 0).then_some("550 5.1.1 no such user")
        }
        _ => None,
    });
    let mut upstream = upstream.await;
    let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.upstream.noop = Duration::from_millis(20);
    })
    .await;
    let mut client = begin(&gateway).await;
    upstream.hears("NOOP").await;
    assert_eq!(upstream.next().await, Heard::Closed);
    let reply = client.say("hello\r\n.", 451).await;
    assert!(reply.starts_with("451 4.3.0 "), "{reply}");
    assert_eq!(gateway.line().await["upstream_reply"], "550 5.1.1 no such user");
}

#[tokio::test]
async fn noop_keeps_the_upstream_while_client_and_verdict_take_their_time() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.upstream.noop = Duration::from_millis(20);
    })
    .await;
    let mut client = begin(&gateway).await;
    for _ in 0..2 {
        upstream.hears("NOOP").await;
    }
    client.send("X: wait\r\n.\r\n").await;
    while gateway.script.messages.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        upstream.hears("NOOP").await;
    }
    gateway.script.go_on.notify_one();
    client.expect(250).await;
    assert!(upstream.message().await.ends_with("X: wait\r\n"));
}

#[tokio::test]
async fn a_held_message_gives_its_connection_to_others_and_gets_another() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start_with(&[upstream.address], |settings, script| {
        settings.upstream.patience = Duration::from_millis(20);
        script.change_routes(|route| route.upstreams[0].max_connections = 1);
    })
    .await;
    let mut client = begin(&gateway).await;
    client.send("X: wait\r\n.\r\n").await;
    while gateway.script.messages.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut other = gateway.client().await;
    other.begin(&["ok"]).await;
    upstream.hears("RSET").await;
    other.say("DATA", 354).await;
    other.say("other\r\n.", 250).await;
    gateway.script.go_on.notify_one();
    client.expect(250).await;
    assert!(upstream.message().await.ends_with("other\r\n"));
    assert!(upstream.message().await.ends_with("X: wait\r\n"));
}

#[tokio::test]
async fn where_there_is_no_room_the_message_waits_at_its_sender() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.spool.max = 1000;
        settings.spool.memory = 100;
    })
    .await;
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    client.say("MAIL FROM:<> SIZE=1001", 250).await;
    client.say("RCPT TO:<held@example.org>", 250).await;
    let reply = client.say("DATA", 452).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert_eq!(gateway.line().await["reason"], "spool_full");
    upstream.hears("RSET").await;

    let mut client = begin(&gateway).await;
    client.send(&"x\r\n".repeat(400)).await;
    let reply = client.say(".", 452).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    upstream.hears("RSET").await;
    assert!(gateway.counts("torwart_spool_bytes 0") && gateway.counts("torwart_spool_files 0"));

    let mut client = begin(&gateway).await;
    client.say(&format!("{}.", "x\r\n".repeat(300)), 250).await;
    assert!(upstream.message().await.ends_with(&"x\r\n".repeat(300)));
}

#[tokio::test]
async fn a_disk_that_fails_is_a_deferral() {
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.spool.dir = "/nowhere/at/all".into();
        settings.spool.memory = 100;
    })
    .await;
    let mut client = begin(&gateway).await;
    let reply = client.say(&format!("{}.", "x\r\n".repeat(300)), 452).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert_eq!(gateway.line().await["reason"], "spool_full");
    let mut client = begin(&gateway).await;
    client.say("small\r\n.", 250).await;
}

#[tokio::test]
async fn a_large_message_goes_by_the_disk_and_arrives_whole() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start(&[upstream.address]).await;
    let mut client = begin(&gateway).await;
    let body: String = (0..40_000)
        .map(|number| format!("line {number} of a message that is larger than any buffer\r\n"))
        .collect();
    client.send(&format!("X: wait\r\n\r\n{body}.\r\n")).await;
    while gateway.script.messages.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(gateway.counts("torwart_spool_files 1"));
    gateway.script.go_on.notify_one();
    client.expect(250).await;
    let message = upstream.message().await;
    assert!(message.ends_with(&body));
    assert!(gateway.counts("torwart_spool_files 0"));
}

#[tokio::test]
async fn a_message_that_is_not_fit_or_not_whole_goes_nowhere() {
    for (ending, code) in [("a\nb\r\n.\r\n", Some(550)), ("half a mess", None)] {
        let mut upstream = FakeUpstream::obedient().await;
        let mut gateway = Gateway::start(&[upstream.address]).await;
        let mut client = begin(&gateway).await;
        client.send(ending).await;
        match code {
            Some(code) => drop(client.expect(code).await),
            None => drop(client),
        }
        upstream.hears("RSET").await;
        let line = gateway.line().await;
        assert_eq!(line["reason"], if code.is_some() { "bare_newline" } else { "client_gone" });
        assert!(gateway.script.messages.lock().unwrap().is_empty());
        assert!(gateway.no_delivery());
        assert!(gateway.counts("torwart_spool_bytes 0"));
    }
}

#[tokio::test]
async fn the_order_to_end_everything_is_heard_while_the_verdict_is_waited_for() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start_with(&[upstream.address], |settings, _| {
        settings.drain_timeout = Duration::from_millis(1);
    })
    .await;
    let mut client = begin(&gateway).await;
    client.send("X: hang\r\n.\r\n").await;
    while gateway.script.messages.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    gateway.shutdown.cancel();
    let reply = client.expect(451).await;
    assert!(reply.starts_with("451 4.3.2 "), "{reply}");
    client.expect(421).await;
    assert_eq!(gateway.line().await["reason"], "shutdown");
    soon(&mut gateway.running).await.unwrap();
    upstream.hears("RSET").await;
}

#[tokio::test]
async fn a_drain_waits_for_a_held_message_like_for_any_other() {
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut idle = gateway.client().await;
    let mut client = begin(&gateway).await;
    gateway.shutdown.cancel();
    idle.expect(421).await;
    client.say("hello\r\n.", 250).await;
    client.expect(421).await;
    assert!(upstream.message().await.ends_with("hello\r\n"));
    soon(&mut gateway.running).await.unwrap();
}

#[tokio::test]
async fn the_upstream_s_last_word_is_told_as_ever() {
    for (answers, code, reason) in [
        (
            (|line| (line == ".").then_some("554 5.7.1 spam")) as super::harness::Answers,
            554,
            "upstream_rejected",
        ),
        (|line| (line == ".").then_some("close"), 451, "upstream_outcome_unknown"),
    ] {
        let upstream = FakeUpstream::start(answers).await;
        let mut gateway = Gateway::start(&[upstream.address]).await;
        let mut client = begin(&gateway).await;
        client.say("hello\r\n.", code).await;
        assert_eq!(gateway.line().await["reason"], reason);
    }
}
