//! One JSON line per transaction, one per session that had none.

use std::collections::BTreeSet;

use serde_json::Value;
use torwart_tests::{Client, Gateway, PolicyFile, Upstream};

const TRANSACTION: [&str; 26] = [
    "action",
    "checks",
    "client",
    "client_port",
    "code",
    "domain_class",
    "duration_ms",
    "enforced",
    "event",
    "from",
    "helo",
    "id",
    "identity",
    "message_id",
    "pod",
    "rdns",
    "reason",
    "recipients",
    "revision",
    "score",
    "size",
    "time",
    "tls",
    "trace_id",
    "upstream",
    "upstream_reply",
];
const RECIPIENT: [&str; 8] = ["action", "code", "domain", "enhanced", "greylist", "reason", "score", "to"];
const SESSION: [&str; 5] = ["client", "duration_ms", "event", "id", "outcome"];

#[track_caller]
fn has_keys(value: &Value, keys: &[&str]) {
    let there: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let missing: Vec<_> = keys.iter().filter(|key| !there.contains(**key)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {value}");
}

#[test]
fn a_delivered_message_has_every_key() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let content = b"Message-ID: <one@sender.example>\r\nSubject: secret subject\r\n\r\nsecret body\r\n";
    let mut client = gateway.client();
    let reply = client.mail("anna@sender.example", &["bert@example.org"], content);
    assert_eq!(reply.code, 250);
    let line = gateway.transaction("the message", |_| true);
    has_keys(&line, &TRANSACTION);
    has_keys(&line["recipients"][0], &RECIPIENT);
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["client_port"], client.local_address().port());
    assert_eq!(line["helo"], "client.sender.example");
    assert_eq!(line["from"], "anna@sender.example");
    assert!(line["message_id"].as_str().unwrap().contains("one@sender.example"), "{line}");
    assert_eq!((&line["action"], &line["code"]), (&"accept".into(), &250.into()), "{line}");
    assert_eq!(line["recipients"][0]["to"], "bert@example.org");
    assert!(line["upstream"].as_str().unwrap().contains(&upstream.endpoint.port().to_string()), "{line}");
    assert!(line["upstream_reply"].to_string().contains("250"), "{line}");
    assert!(line["size"].as_u64().unwrap() >= content.len() as u64, "{line}");
    let text = line.to_string();
    assert!(!text.contains("secret"), "{text}");
    // One id everywhere: reply, log and header.
    let id = line["id"].as_str().unwrap();
    assert!(reply.text().contains(id), "{reply}");
    let content = String::from_utf8_lossy(&upstream.received()[0].content).into_owned();
    assert!(content.contains(&format!("X-Torwart-Id: {id}\r\n")), "{content}");
}

#[test]
fn a_deferral_has_every_key_and_its_id_is_in_the_reply() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1h}"));
    let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], b"\r\n");
    assert_eq!((reply.code, reply.enhanced()), (450, "4.2.0"), "{reply}");
    let line = gateway.transaction("the deferral", |_| true);
    has_keys(&line, &TRANSACTION);
    has_keys(&line["recipients"][0], &RECIPIENT);
    let recipient = &line["recipients"][0];
    assert_eq!(
        (&recipient["reason"], &recipient["greylist"]),
        (&"greylisted".into(), &"new".into()),
        "{line}"
    );
    assert!(reply.text().contains(line["id"].as_str().unwrap()), "{reply}");
    // How long to wait, in seconds.
    assert!(reply.text().contains("3600") || reply.text().contains("3599"), "{reply}");
    assert_eq!(upstream.accepted(), 0);
}

#[test]
fn a_session_without_a_transaction_has_its_line() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    client.ask(221, "QUIT");
    let line = gateway.session("quit", |_| true);
    has_keys(&line, &SESSION);
    drop(Client::connect(gateway.smtp));
    gateway.session("a probe", |line| line["outcome"] == "probe");
}

#[test]
fn each_transaction_of_a_session_has_one_line_and_an_id_of_its_own() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    }
    client.ask(221, "QUIT");
    let ids: BTreeSet<String> = gateway
        .lines()
        .wait_count(5, "a transaction", |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value["event"] == "transaction").then(|| value["id"].as_str().unwrap().to_owned())
        })
        .into_iter()
        .collect();
    assert_eq!(ids.len(), 5);
    let (_, lines) = gateway.stop();
    let transactions = lines.iter().filter(|line| line.contains("\"event\":\"transaction\"")).count();
    assert_eq!(transactions, 5, "{}", lines.join("\n"));
}

#[test]
fn addresses_can_be_kept_out_of_the_log() {
    let upstream = Upstream::start();
    for how in ["domain", "hash"] {
        let gateway =
            Gateway::builder().flag("--log-addresses", how).start(&PolicyFile::to(upstream.endpoint).text());
        let mut client = gateway.client();
        assert_eq!(
            client.mail("particular@sender.example", &["unmistakable@example.org"], b"\r\n").code,
            250
        );
        client.ask(221, "QUIT");
        gateway.transaction("the message", |_| true);
        let (_, lines) = gateway.stop();
        let text = lines.join("\n");
        assert!(!text.contains("particular") && !text.contains("unmistakable"), "{how}: {text}");
    }
}

#[test]
fn hostile_names_cannot_forge_a_line() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = Client::connect(gateway.smtp);
    client.expect(220);
    client.command("EHLO x\",\"event\":\"transaction\",\"action\":\"accept");
    client.command("MAIL FROM:<\"a\\\"b\"@sender.example>");
    client.command("RCPT TO:<\"\\\"},{\"@foreign.example>");
    client.ask(221, "QUIT");
    let (_, lines) = gateway.stop();
    for line in lines.iter().filter(|line| line.starts_with('{')) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(value["action"], "accept", "{line}");
    }
}
