//! Messages that are held until the verdict has seen them: the whole way, in one process and in several.

use std::fs;
use std::path::Path;
use std::process::Command;

use torwart_tests::{
    Act, Client, Fleet, Gateway, PolicyFile, Postfix, PostfixRole, RedisServer, Step, Upstream, eventually,
    without_added_fields,
};

const CHECK: &str = "--test-message-check";
const BERT: [&str; 1] = ["bert@example.org"];

fn message(wish: &str) -> Vec<u8> {
    format!("X-Test-Verdict: {wish}\r\nSubject: x\r\n\r\nbody\r\n").into_bytes()
}

fn holding(upstream: &Upstream) -> Gateway {
    Gateway::builder().flag(CHECK, true).start(&PolicyFile::to(upstream.endpoint).text())
}

/// Edge and one verdict in the test's hand.
fn fleet(upstream: &Upstream, redis: &RedisServer) -> Fleet {
    let fleet = Fleet::builder(&redis.url()).verdicts(1).verdict_flag(CHECK, true);
    fleet.start(&PolicyFile::to(upstream.endpoint).text())
}

/// Up to the 354.
#[track_caller]
fn begin(smtp: std::net::SocketAddr) -> Client {
    let mut client = Client::greeted(smtp);
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    client.ask(354, "DATA");
    client
}

#[test]
fn the_verdict_s_word_on_a_message_is_said_at_its_dot() {
    let upstream = Upstream::start();
    let gateway = holding(&upstream);
    let mut client = gateway.client();
    for (wish, code) in
        [("reject", 550), ("defer", 450), ("delay 100", 250), ("", 250), ("reject", 550), ("tag", 250)]
    {
        let reply = client.mail("anna@sender.example", &BERT, &message(wish));
        assert_eq!(reply.code, code, "{wish}: {reply}");
        gateway.wait_metrics("the connection waits for the next", |metrics| {
            metrics.sum("torwart_upstream_connections", &[("state", "idle")]) == 1.0
        });
    }
    let received = upstream.received();
    assert_eq!(received.len(), 3, "nothing of what was refused");
    assert_eq!(upstream.accepted(), 1, "the connection was used again");
    assert_eq!(without_added_fields(&received[0].content), message("delay 100"));
    let line = gateway.transaction("refused", |line| line["code"] == 550);
    assert_eq!((&line["reason"], &line["score"]), (&"score".into(), &10.0.into()), "{line}");
    assert_eq!(line["checks"][0]["name"], "scanner/test", "{line}");
    let tagged = gateway.transaction("tagged", |line| line["score"] == 4.5);
    let metrics = gateway.metrics();
    let stage = |action| metrics.sum("torwart_verdicts_total", &[("stage", "message"), ("action", action)]);
    assert_eq!([stage("accept"), stage("defer"), stage("reject")], [3.0, 1.0, 2.0]);
    assert_eq!(metrics.sum("torwart_verdict_seconds_count", &[("stage", "message")]), 6.0);
    assert_eq!(metrics.sum("torwart_spool_bytes", &[]), 0.0);

    let text = String::from_utf8(received[2].content.clone()).unwrap();
    let names: Vec<&str> = text
        .split("\r\n")
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with(['\t', ' ']))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    let expected = [
        "Received",
        "Authentication-Results",
        "X-Torwart-Id",
        "X-Torwart-Score",
        "X-Torwart-Status",
        "X-Test-Verdict",
        "Subject",
    ];
    assert_eq!(names, expected, "{text}");
    assert!(text.contains(&format!("X-Torwart-Id: {}\r\n", tagged["id"].as_str().unwrap())), "{text}");
}

#[test]
fn forged_fields_are_gone_and_all_else_arrives_byte_for_byte() {
    let forged = b"X-Torwart-Id: 1\r\nAuthentication-Results: (a) mx.example.net\r\n 1; spf=pass\r\nx-torwart-status:\r\n\tNo\r\n";
    let others = b"Authentication-Results: other.example; none\r\nX-Torwart: \xff\r\nX : y\r\n\r\nX-Torwart-Id: 2\r\n..\r\n";
    let upstream = Upstream::start();
    for gateway in [holding(&upstream), Gateway::start(&PolicyFile::to(upstream.endpoint))] {
        let sent = [&forged[..], others].concat();
        assert_eq!(gateway.client().mail("anna@sender.example", &BERT, &sent).code, 250);
        let received = upstream.received().pop().unwrap();
        assert_eq!(without_added_fields(&received.content), others);
    }
}

#[test]
fn a_real_mail_server_gets_what_was_held_and_what_the_verdict_wrote() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let gateway = Gateway::builder().flag(CHECK, true).start(&PolicyFile::to(mailbox.endpoint).text());
    let mut client = gateway.client();
    assert_eq!(client.mail("anna@sender.example", &BERT, &message("reject")).code, 550);
    assert_eq!(client.mail("anna@sender.example", &BERT, &message("tag")).code, 250);
    mailbox.log(&["to=<bert@example.org>", "delivered to maildir"]);
    let mails = mailbox.mailbox();
    assert_eq!(mails.len(), 1);
    let text = String::from_utf8_lossy(&mails[0]).into_owned();
    assert!(text.contains("X-Torwart-Status: Yes,\n\tscore=4.5\n"), "{text}");
}

#[test]
fn a_mail_server_that_restarts_meanwhile_gets_the_message_once() {
    let upstream = Upstream::start();
    let gateway = holding(&upstream);
    let mut client = begin(gateway.smtp);
    client.send(message("delay 1"));
    upstream.close();
    upstream.open();
    client.ask(250, ".");
    let received = upstream.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].to, BERT);
    assert_eq!(without_added_fields(&received[0].content), message("delay 1"));
}

#[test]
fn a_mail_server_that_thinks_otherwise_after_its_restart_defers_the_message() {
    let upstream = Upstream::start();
    let gateway = holding(&upstream);
    let mut client = begin(gateway.smtp);
    upstream.unknown_recipient("bert@example.org");
    upstream.drop_connections();
    client.send(message(""));
    let reply = client.ask(451, ".");
    assert_eq!(reply.enhanced(), "4.3.0", "{reply}");
    assert!(upstream.received().is_empty());
}

#[test]
fn a_mail_server_that_is_down_at_the_dot_defers_the_message() {
    let upstream = Upstream::start();
    let gateway = holding(&upstream);
    let mut client = begin(gateway.smtp);
    upstream.close();
    client.send(message(""));
    client.ask(451, ".");
    upstream.open();
    // what an upstream did while it was away is forgotten soon
    eventually("mail flows again", || {
        gateway.client().mail("anna@sender.example", &BERT, &message("")).code == 250
    });
}

#[test]
fn a_verdict_that_is_killed_inside_a_message_leaves_the_mail_with_its_sender() {
    let (upstream, redis) = (Upstream::start(), RedisServer::start());
    let mut fleet = fleet(&upstream, &redis);
    let smtp = fleet.edges[0].listen;
    let mut client = begin(smtp);
    client.send("Subject: x\r\n\r\n");
    client.send([[b'x'; 98].as_slice(), b"\r\n"].concat().repeat(10_000));
    fleet.verdicts[0].wait_metrics("the message is there", |metrics| {
        metrics.sum("torwart_verdict_calls_in_flight", &[]) == 1.0
    });
    fleet.verdicts[0].kill();
    let reply = client.ask(451, ".");
    assert_eq!(reply.enhanced(), "4.3.5", "{reply}");
    assert!(upstream.received().is_empty());
    fleet.verdicts[0].start_again();
    eventually("mail flows again", || {
        Client::greeted(smtp).mail("anna@sender.example", &BERT, &message("")).code == 250
    });
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_verdict_that_is_killed_before_its_word_leaves_the_mail_with_its_sender() {
    let (upstream, redis) = (Upstream::start(), RedisServer::start());
    let mut fleet = fleet(&upstream, &redis);
    let mut client = begin(fleet.edges[0].listen);
    client.send([&message("hang")[..], b".\r\n"].concat());
    fleet.verdicts[0].wait_metrics("the message is there", |metrics| {
        metrics.sum("torwart_verdict_calls_in_flight", &[]) == 1.0
    });
    fleet.verdicts[0].kill();
    assert_eq!(client.reply().enhanced(), "4.3.5");
    assert!(upstream.received().is_empty());
}

#[test]
fn where_the_spool_is_full_the_next_message_waits_at_its_sender() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .flag(CHECK, true)
        .flag("--max-message-size", "1Mi")
        .flag("--spool-max", "1Mi")
        .start(&PolicyFile::to(upstream.endpoint).text());
    let large = [b"Subject: x\r\n\r\n".to_vec(), b"0123456789abcdef\r\n".repeat(40_000)].concat();
    let mut first = begin(gateway.smtp);
    first.send(&large);
    gateway
        .wait_metrics("it is held", |metrics| metrics.sum("torwart_spool_bytes", &[]) == large.len() as f64);
    assert_eq!(gateway.metrics().sum("torwart_spool_files", &[]), 1.0);
    // at DATA, if its size was declared; else at its dot
    let mut second = gateway.client();
    second.ask(250, format!("MAIL FROM:<anna@sender.example> SIZE={}", large.len()));
    second.ask(250, "RCPT TO:<bert@example.org>");
    assert_eq!(second.ask(452, "DATA").enhanced(), "4.3.1");
    let reply = second.mail("anna@sender.example", &BERT, &large);
    assert_eq!((reply.code, reply.enhanced()), (452, "4.3.1"), "{reply}");
    first.ask(250, ".");
    assert_eq!(second.mail("anna@sender.example", &BERT, &large).code, 250);
    assert_eq!(upstream.received().len(), 2);
    let line = gateway.transaction("refused", |line| line["code"] == 452);
    assert_eq!(line["reason"], "spool_full", "{line}");
    gateway.wait_metrics("all is given back", |metrics| metrics.sum("torwart_spool_bytes", &[]) == 0.0);
}

/// A file system of its own, gone with it.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Needs to be root.
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(at)
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.0.as_os_str()]).status();
    }
}

#[test]
fn where_the_disk_is_full_a_large_message_waits_and_a_small_one_goes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path(), "256k") else {
        eprintln!("not run: only root can mount a small disk");
        return;
    };
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .flag(CHECK, true)
        .flag("--spool-dir", folder.path().display())
        .flag("--spool-memory", "64Ki")
        .start(&PolicyFile::to(upstream.endpoint).text());
    let large = [b"Subject: x\r\n\r\n".to_vec(), b"0123456789abcdef\r\n".repeat(40_000)].concat();
    let mut client = gateway.client();
    let reply = client.mail("anna@sender.example", &BERT, &large);
    assert_eq!((reply.code, reply.enhanced()), (452, "4.3.1"), "{reply}");
    gateway.notice("--spool-dir can't hold a message");
    assert_eq!(client.mail("anna@sender.example", &BERT, &message("")).code, 250);
    assert_eq!(upstream.received().len(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
}

#[test]
fn a_message_of_48_mib_passes_through_bounded_memory_and_arrives_byte_for_byte() {
    let (upstream, redis) = (Upstream::start(), RedisServer::start());
    let fleet = Fleet::builder(&redis.url())
        .verdicts(1)
        .verdict_flag(CHECK, true)
        .verdict_flag("--inspect-limit", "1Mi");
    let mut fleet = fleet.start(&PolicyFile::to(upstream.endpoint).text());
    let smtp = fleet.edges[0].listen;
    assert_eq!(Client::greeted(smtp).mail("anna@sender.example", &BERT, &message("")).code, 250);
    let before = [fleet.edges[0].process().peak_resident(), fleet.verdicts[0].process().peak_resident()];
    let line = b".0123456789abcdefghijklmnopqrstuvwxyz\xff\xfe0123456789abcdefghijklmnopqr\r\n";
    let large = [&b"Subject: large\r\n\r\n"[..], &line.repeat((48 << 20) / line.len())].concat();
    assert_eq!(Client::greeted(smtp).mail("anna@sender.example", &BERT, &large).code, 250);
    let after = [fleet.edges[0].process().peak_resident(), fleet.verdicts[0].process().peak_resident()];
    let received = upstream.received().pop().unwrap();
    assert!(without_added_fields(&received.content) == large, "{} bytes arrived", received.content.len());
    let grown = [after[0] - before[0], after[1] - before[1]];
    // two buffers here, two there, and what a debug build and an allocator take for them
    assert!(grown[0] < 32 << 20, "the edge grew by {} bytes", grown[0]);
    assert!(grown[1] < 32 << 20, "the verdict grew by {} bytes", grown[1]);
}

#[test]
fn what_an_upstream_s_failing_dot_means_is_the_same_for_a_held_message() {
    let upstream = Upstream::start();
    let gateway = holding(&upstream);
    upstream.fail_always(Step::Dot, Act::KeepAndClose);
    let reply = gateway.client().mail("anna@sender.example", &BERT, &message(""));
    assert_eq!((reply.code, reply.enhanced()), (451, "4.4.2"), "{reply}");
    assert_eq!(gateway.metrics().sum("torwart_outcome_unknown_total", &[]), 1.0);
}
