//! The admin port.

use torwart_tests::{Gateway, PolicyFile, Upstream};

/// The names that dashboards rely on, as far as there is something to count.
const METRICS: [&str; 17] = [
    "torwart_client_address_suspect_total",
    "torwart_greylist_delay_seconds_count",
    "torwart_greylist_total",
    "torwart_message_bytes_total",
    "torwart_messages_total",
    "torwart_outcome_unknown_total",
    "torwart_policy_info",
    "torwart_policy_load_failures_total",
    "torwart_smtp_commands_total",
    "torwart_smtp_connections",
    "torwart_smtp_sessions_total",
    "torwart_store_failures_total",
    "torwart_store_seconds_count",
    "torwart_upstream_connections",
    "torwart_upstream_failures_total",
    "torwart_verdict_seconds_count",
    "torwart_verdicts_total",
];

#[test]
fn health_readiness_and_policy_are_served() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    assert_eq!(gateway.get("/healthz").0, 200);
    assert_eq!(gateway.get("/readyz").0, 200);
    let (status, text) = gateway.get("/policy");
    assert_eq!(status, 200);
    let policy: serde_json::Value = serde_json::from_str(&text).unwrap();
    let revision = policy["revision"].as_str().unwrap();
    assert_eq!(revision.len(), 64, "{policy}");
    assert!(text.contains("example-org"), "{policy}");
    let info = gateway.metrics();
    assert_eq!(info.sum("torwart_policy_info", &[("revision", revision)]), 1.0, "{}", info.text());
    assert_eq!(gateway.get("/nothing").0, 404);
}

#[test]
fn the_revision_changes_with_the_policy_and_only_then() {
    let revision = |upstream| {
        let gateway = Gateway::start(&PolicyFile::to(upstream).greylisting("{mode: Always, delay: 7s}"));
        let policy: serde_json::Value = serde_json::from_str(&gateway.get("/policy").1).unwrap();
        policy["revision"].as_str().unwrap().to_owned()
    };
    let (one, other) = (Upstream::start(), Upstream::start());
    let first = revision(one.endpoint);
    assert_eq!(first, revision(one.endpoint));
    assert_ne!(first, revision(other.endpoint));
}

#[test]
fn the_counters_tell_what_happened() {
    let upstream = Upstream::start();
    upstream.unknown_recipient("nobody@example.org");
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).also("grey.example", upstream.endpoint));
    let content = b"Subject: counted\r\n\r\n0123456789\r\n";
    assert_eq!(gateway.client().mail("anna@sender.example", &["bert@example.org"], content).code, 250);
    assert_eq!(gateway.client().mail("anna@sender.example", &["bert@foreign.example"], content).code, 550);
    assert!(!gateway.client().mail("anna@sender.example", &["nobody@example.org"], content).is_positive());
    let metrics = gateway.wait_metrics("three sessions ended", |metrics| {
        metrics.sum("torwart_smtp_sessions_total", &[]) >= 3.0
    });
    let sum = |name, labels| metrics.sum(name, labels);
    assert_eq!(sum("torwart_messages_total", &[]), 1.0, "{}", metrics.text());
    assert!(sum("torwart_message_bytes_total", &[]) >= content.len() as f64);
    assert_eq!(sum("torwart_verdicts_total", &[("reason", "unknown_domain")]), 1.0, "{}", metrics.text());
    assert_eq!(sum("torwart_smtp_commands_total", &[("verb", "rcpt")]), 3.0, "{}", metrics.text());
    assert_eq!(sum("torwart_smtp_connections", &[]), 0.0, "{}", metrics.text());
    for name in METRICS {
        assert!(metrics.has(name), "{name} is missing:\n{}", metrics.text());
    }
}

#[test]
fn no_label_holds_an_address_or_a_name_from_mail() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    assert_eq!(client.mail("quitespecial@sender.example", &["unmistakable@example.org"], b"\r\n").code, 250);
    client.command("FLABBERGAST me");
    client.ask(221, "QUIT");
    gateway
        .wait_metrics("the session ended", |metrics| metrics.sum("torwart_smtp_sessions_total", &[]) >= 1.0);
    let text = gateway.metrics().text().to_ascii_lowercase();
    for word in ["quitespecial", "unmistakable", "sender.example", "flabbergast", "127.0.0.1"] {
        assert!(!text.contains(word), "{word}");
    }
}
