//! How it ends: in order, or at once. Neither loses a message.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use torwart_tests::{Client, Gateway, PATIENCE, PolicyFile, Upstream};

#[test]
fn sigterm_ends_idle_sessions_and_lets_a_message_finish() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut idle = gateway.client();
    let mut busy = gateway.client();
    busy.ask(250, "MAIL FROM:<anna@sender.example>");
    busy.ask(250, "RCPT TO:<bert@example.org>");
    busy.ask(354, "DATA");
    busy.send("Subject: slow\r\n");
    gateway.process().signal("TERM");
    let farewell = idle.expect(421);
    assert_eq!(farewell.enhanced(), "4.3.2", "{farewell}");
    idle.expect_close();
    assert!(Client::try_connect(gateway.smtp, None).is_err(), "it still listens");
    busy.send("\r\nthe end\r\n.\r\n");
    busy.expect(250);
    busy.expect(421);
    busy.expect_close();
    assert!(gateway.process().wait(PATIENCE).success());
    let received = upstream.received();
    assert_eq!(received.len(), 1);
    assert!(received[0].content.ends_with(b"\r\nthe end\r\n"));
}

#[test]
fn during_the_drain_delay_connections_are_still_served() {
    let upstream = Upstream::start();
    let mut gateway =
        Gateway::builder().flag("--drain-delay", "3s").start(&PolicyFile::to(upstream.endpoint).text());
    assert_eq!(gateway.get("/readyz").0, 200);
    gateway.process().signal("TERM");
    gateway.notice("drain");
    assert_eq!(gateway.get("/readyz").0, 200);
    assert_eq!(gateway.client().mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    assert!(gateway.process().wait(PATIENCE).success());
}

#[test]
fn a_session_that_never_ends_is_ended_by_the_drain_timeout() {
    let upstream = Upstream::start();
    let mut gateway =
        Gateway::builder().flag("--drain-timeout", "1s").start(&PolicyFile::to(upstream.endpoint).text());
    let mut busy = gateway.client();
    busy.ask(250, "MAIL FROM:<anna@sender.example>");
    busy.ask(250, "RCPT TO:<bert@example.org>");
    busy.ask(354, "DATA");
    busy.send("Subject: never ends\r\n");
    gateway.process().signal("TERM");
    assert!(gateway.process().wait(PATIENCE).success());
    assert!(busy.rest().iter().all(|reply| reply.is_temporary()));
    assert!(upstream.received().is_empty());
}

/// Sends numbered messages from several threads until told to stop; returns the numbers that heard 250.
fn load(gateway: &Gateway, during: impl FnOnce()) -> HashSet<u32> {
    let stop = AtomicBool::new(false);
    let next = AtomicU32::new(0);
    let heard = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if attempt(gateway, number) == Some(true) {
                        heard.lock().unwrap().insert(number);
                    }
                }
            });
        }
        during();
        stop.store(true, Ordering::Relaxed);
    });
    heard.into_inner().unwrap()
}

/// `None` is a connection that failed.
fn attempt(gateway: &Gateway, number: u32) -> Option<bool> {
    let mut client = Client::try_connect(gateway.smtp, None).ok()?;
    if client.try_reply().ok()?.code != 220 {
        return Some(false);
    }
    client.try_send(b"EHLO client.sender.example\r\n").ok()?;
    client.try_reply().ok()?;
    let from = format!("n{number}@sender.example");
    let reply = client.try_mail(&from, &["bert@example.org"], b"Subject: load\r\n\r\nx\r\n").ok()?;
    assert!(reply.code == 250 || reply.is_temporary(), "{reply}");
    Some(reply.code == 250)
}

fn delivered(upstream: &Upstream) -> HashSet<u32> {
    let number =
        |from: &str| from.trim_start_matches('n').trim_end_matches("@sender.example").parse().unwrap();
    upstream.received().iter().map(|mail| number(&mail.from)).collect()
}

#[test]
fn a_kill_under_load_loses_nothing_that_heard_250() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let id = gateway.process().id().to_string();
    let heard = load(&gateway, || {
        upstream.wait_received(500);
        assert_eq!(torwart_tests::tool("kill", &["-KILL", &id]).code, 0);
    });
    assert!(heard.len() > 100, "{}", heard.len());
    let lost: Vec<_> = heard.difference(&delivered(&upstream)).copied().collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_stop_under_load_loses_and_doubles_nothing() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let id = gateway.process().id().to_string();
    let heard = load(&gateway, || {
        upstream.wait_received(500);
        assert_eq!(torwart_tests::tool("kill", &["-TERM", &id]).code, 0);
    });
    assert!(gateway.process().wait(PATIENCE).success());
    // In order means that client and upstream agree on every single message.
    assert_eq!(heard, delivered(&upstream));
    assert_eq!(upstream.received().len(), heard.len());
}
