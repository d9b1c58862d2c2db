//! A mail server that says anything at any time: the sender hears 4xx, memory is bounded, other domains work.

use std::time::Instant;

use torwart_tests::{Act, Gateway, PATIENCE, PolicyFile, Step, Upstream, swaks};

const MEMORY: u64 = 256 << 20;

fn say(text: &str) -> Act {
    Act::Say(text.as_bytes().to_vec())
}

/// One domain's mail server is hostile, the other's is well.
fn survives(name: &str, step: Step, act: Act) {
    let hostile = Upstream::start();
    let well = Upstream::start();
    let policy = PolicyFile::to(hostile.endpoint).also("well.example", well.endpoint);
    let mut gateway = Gateway::builder().address_space(MEMORY).start(&policy.text());
    hostile.fail_always(step, act);
    let began = Instant::now();
    for _ in 0..3 {
        let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n");
        assert!(reply.is_temporary(), "{name}: {reply}");
    }
    assert!(hostile.struck() > 0, "{name} was not tried");
    assert!(began.elapsed() < PATIENCE, "{name}: held up");
    let reply = gateway.client().mail("anna@sender.example", &["bert@well.example"], b"Subject: x\r\n");
    assert_eq!(reply.code, 250, "{name}");
    assert!(hostile.received().is_empty(), "{name}");
    let peak = gateway.process().peak_resident();
    assert!(peak < MEMORY / 2, "{name}: {} MiB were resident", peak >> 20);
}

#[test]
fn endless_reply_lines() {
    survives("banner", Step::Banner, Act::Flood(b"220-and another thing\r\n".repeat(50)));
    survives("EHLO", Step::Ehlo, Act::Flood(b"250-SIZE 1000\r\n".repeat(50)));
    survives("MAIL", Step::Mail, Act::Flood(b"250-fine\r\n".repeat(50)));
    survives("RCPT", Step::Rcpt, Act::Flood(b"250-fine\r\n".repeat(50)));
    survives("DATA", Step::Data, Act::Flood(b"354-go on\r\n".repeat(50)));
    survives("dot", Step::Dot, Act::Flood(b"250-kept\r\n".repeat(50)));
}

#[test]
fn a_reply_line_without_an_end() {
    survives("banner", Step::Banner, Act::Flood(vec![b'2'; 64 * 1024]));
    survives("EHLO", Step::Ehlo, Act::Flood(vec![b'x'; 64 * 1024]));
    survives("dot", Step::Dot, Act::Flood(vec![b' '; 64 * 1024]));
}

#[test]
fn a_flood_of_whole_replies() {
    survives("banner", Step::Banner, Act::Flood(b"220 x\r\n".repeat(1000)));
    survives("dot", Step::Dot, Act::Flood(b"421 x\r\n".repeat(1000)));
}

#[test]
fn codes_that_mean_nothing() {
    for text in [
        "000 no\r\n",
        "999 no\r\n",
        "99 no\r\n",
        "hello\r\n",
        "\r\n",
        "25 0 ok\r\n",
        "2500 ok\r\n",
        "\0\0\0\r\n",
    ] {
        survives(text, Step::Banner, say(text));
        survives(text, Step::Mail, say(text));
        survives(text, Step::Dot, say(text));
    }
}

#[test]
fn codes_that_belong_elsewhere() {
    survives("354 to MAIL", Step::Mail, say("354 go on\r\n"));
    survives("354 to RCPT", Step::Rcpt, say("354 go on\r\n"));
    survives("250 to DATA", Step::Data, say("250 ok\r\n"));
    survives("220 to DATA", Step::Data, say("220 ok\r\n"));
    survives("354 to the dot", Step::Dot, say("354 more\r\n"));
    survives("two codes in one reply", Step::Mail, say("250-ok\r\n550 no\r\n"));
}

#[test]
fn replies_before_their_commands() {
    survives(
        "banner and EHLO",
        Step::Banner,
        say("220 x\r\n250 y\r\n250 z\r\n250 a\r\n354 b\r\n250 c\r\n221 d\r\n"),
    );
    survives("MAIL to the dot", Step::Mail, say("250 a\r\n250 b\r\n354 c\r\n250 d\r\n250 e\r\n250 f\r\n"));
    survives("the dot's before the message", Step::Data, say("354 go\r\n250 kept already\r\n"));
}

#[test]
fn a_fault_of_tls_at_the_upstream() {
    let hostile = Upstream::start_with(&["PIPELINING", "STARTTLS"]);
    let gateway = Gateway::start(&PolicyFile::to(hostile.endpoint).route("tls: {mode: Required}"));
    for act in [
        say("454 4.7.0 not now\r\n"),
        say("220 go on\r\n250 injected.example\r\n"),
        say("220 go on\r\n220 this is no TLS\r\n"),
        Act::Close,
    ] {
        hostile.fail_always(Step::StartTls, act.clone());
        let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n");
        assert!(reply.is_temporary(), "{act:?}: {reply}");
    }
    assert!(hostile.received().is_empty(), "nothing may go in clear");
}

#[test]
fn an_upstream_with_broken_tls_is_spoken_to_in_clear_when_that_is_allowed() {
    let upstream = Upstream::start_with(&["PIPELINING", "STARTTLS"]);
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).route("tls: {mode: Opportunistic}"));
    upstream.fail_always(Step::StartTls, Act::SayAndClose(b"220 go on\r\n".to_vec()));
    let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n");
    assert_eq!(reply.code, 250, "{reply}");
}

#[test]
fn an_upstream_without_any_extension_gets_its_mail() {
    let upstream = Upstream::start_with(&[]);
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let sent = swaks(gateway.smtp, "anna@sender.example", "bert@example.org", &[]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    assert!(!upstream.received()[0].mail.contains("SIZE="), "{}", upstream.received()[0].mail);
}
