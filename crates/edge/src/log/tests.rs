use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use torwart_core::{
    Action, CheckOutcome, CheckResult, ClassDigest, Envelope, Greylist, Id, Mailbox, Peer, Reason, Revision,
    TlsFacts,
};

use super::*;
use crate::metrics::SessionOutcome;

fn peer() -> Arc<Peer> {
    Arc::new(Peer {
        session: Id::from_u128(1),
        address: "192.0.2.7:4711".parse().unwrap(),
        helo: Some("client.example".into()),
        tls: Some(TlsFacts { version: "TLSv1.3".into(), cipher: "TLS13_AES_256_GCM_SHA384".into() }),
        early_talker: false,
    })
}

fn transaction(recipients: usize) -> Record {
    let recipient = RecipientRecord {
        to: Mailbox::new("Bob", "Example.org"),
        domain: Some("example.org".into()),
        action: Action::Accept,
        code: 250,
        enhanced: (2, 1, 5),
        reason: Reason::Accepted,
        greylist: Some(Greylist::Passed),
        score: 1.25,
    };
    Record::Transaction(Box::new(TransactionRecord {
        id: Id::from_u128(2),
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_492_800_250),
        peer: peer(),
        envelope: Arc::new(Envelope {
            sender: Some(Mailbox::new("alice", "example.com")),
            declared_size: None,
            eight_bit: false,
            smtputf8: false,
        }),
        message_id: Some("<1@a>\u{7}".into()),
        size: Some(42),
        action: Action::Accept,
        code: Some(250),
        reason: Reason::Accepted,
        score: f32::NAN,
        checks: vec![CheckResult {
            name: "spf".into(),
            result: CheckOutcome::SoftFail,
            score: -0.0,
            detail: "~all".into(),
            milliseconds: 3,
        }],
        identity: Some("network:192.0.2.0/24".into()),
        domain_class: Some(ClassDigest([0xab; 16])),
        upstream: Some("mail.example:25".into()),
        upstream_reply: Some("250 ok".into()),
        revision: Some(Revision("abc".into())),
        enforced: true,
        duration_ms: 12,
        trace_id: None,
        recipients: vec![recipient; recipients],
    }))
}

fn line(record: &Record, options: &MailLogOptions) -> String {
    let mut lines = Vec::new();
    record.append_line(options, &mut lines);
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    text
}

#[test]
fn a_transaction_has_exactly_the_contract_s_keys() {
    let options = MailLogOptions { pod: Some("edge-0".into()), ..MailLogOptions::default() };
    let text = line(&transaction(1), &options);
    assert!(!text.contains("-0.0"), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "event": "transaction", "id": "00000000000000000000000002", "time": "2026-11-24T04:00:00.250Z",
        "client": "192.0.2.7", "client_port": 4711, "rdns": null, "helo": "client.example",
        "tls": "TLSv1.3 TLS13_AES_256_GCM_SHA384", "early_talker": false, "from": "alice@example.com", "message_id": "<1@a>\u{7}", "size": 42,
        "action": "accept", "code": 250, "reason": "accepted", "score": 0.0,
        "checks": [{"name": "spf", "result": "softfail", "score": 0.0, "detail": "~all", "ms": 3}],
        "identity": "network:192.0.2.0/24", "domain_class": "abababababababababababababababab",
        "upstream": "mail.example:25", "upstream_reply": "250 ok", "revision": "abc", "enforced": true,
        "duration_ms": 12, "trace_id": null, "pod": "edge-0",
        "recipients": [{
            "to": "Bob@Example.org", "domain": "example.org", "action": "accept", "code": 250, "enhanced": "2.1.5",
            "reason": "accepted", "greylist": "passed", "score": 1.25,
        }],
    });
    assert_eq!(value, expected);
}

#[test]
fn a_session_without_a_transaction_has_its_own_line() {
    let record = Record::Session(SessionRecord {
        id: Id::from_u128(1),
        time: SystemTime::UNIX_EPOCH,
        client: "[2001:db8::1]:25".parse().unwrap(),
        early_talker: true,
        outcome: SessionOutcome::Probe,
        duration_ms: 7,
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
    });
    let value: Value = serde_json::from_str(&line(&record, &MailLogOptions::default())).unwrap();
    assert_eq!(
        value,
        json!({
            "event": "session", "id": "00000000000000000000000001", "time": "1970-01-01T00:00:00.000Z",
            "client": "2001:db8::1", "client_port": 25, "early_talker": true, "outcome": "probe", "duration_ms": 7,
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "pod": null,
        })
    );
}

#[test]
fn addresses_are_shown_as_much_as_was_asked_for() {
    let shown = |addresses| {
        let options = MailLogOptions { addresses, ..MailLogOptions::default() };
        let value: Value = serde_json::from_str(&line(&transaction(1), &options)).unwrap();
        (
            value["from"].as_str().unwrap().to_owned(),
            value["recipients"][0]["to"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(shown(LogAddresses::Domain), ("example.com".into(), "Example.org".into()));
    let (from, to) = shown(LogAddresses::Hash);
    // sha256("alice@example.com"), sha256("Bob@example.org")
    assert_eq!(from, "ff8d9819fc0e12bf0d24892e45987e24");
    assert_eq!(to.len(), 32);
    assert!(to.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn text_is_one_line_too() {
    let options = MailLogOptions { format: LogFormat::Text, ..MailLogOptions::default() };
    let text = line(&transaction(1), &options);
    assert!(text.starts_with("2026-11-24T04:00:00.250Z "), "{text}");
    assert!(
        text.contains(r#" reason="accepted""#) && text.contains(r#" message_id="<1@a>\u0007""#),
        "{text}"
    );
    assert!(!text.contains("null"), "{text}");
}

/// A sink that fails for a while.
#[derive(Clone)]
struct Sink {
    written: Arc<Mutex<Vec<u8>>>,
    broken: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_line_is_written_before_the_writer_is_done() {
    let written = Arc::default();
    let sink = Sink { written: Arc::clone(&written), broken: false };
    let (log, writer) = MailLog::start(sink, MailLogOptions::default(), &Registry::new()).unwrap();
    for _ in 0..500 {
        log.write(transaction(3)).await;
    }
    drop(log);
    writer.finish();
    let written = written.lock().unwrap();
    let lines: Vec<Value> = written
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 500);
}

#[tokio::test]
async fn lines_that_cannot_be_written_are_counted() {
    let sink = Sink { written: Arc::default(), broken: true };
    let (log, writer) = MailLog::start(sink, MailLogOptions::default(), &Registry::new()).unwrap();
    let dropped = log.dropped.clone();
    for _ in 0..3 {
        log.write(transaction(1)).await;
    }
    drop(log);
    writer.finish();
    assert_eq!(dropped.get(), 3);
}

/// A sink that takes nothing until it is let go.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // an error means that the test let go
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_log_holds_a_session_up_only_so_long() {
    let (release, stuck) = std::sync::mpsc::channel();
    let (log, writer) = MailLog::start(Stuck(stuck), MailLogOptions::default(), &Registry::new()).unwrap();
    let started = tokio::time::Instant::now();
    while log.dropped.get() == 0 {
        log.write(transaction(4000)).await;
        assert!(started.elapsed() <= 3 * PATIENCE);
    }
    assert!(started.elapsed() >= PATIENCE);
    drop((release, log));
    writer.finish();
}
