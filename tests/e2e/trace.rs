//! One mail as a collector sees it: one trace over edge, verdict, store and upstream.

mod collector;

use std::collections::BTreeSet;
use std::net::TcpListener;

use serde_json::Value;
use torwart_tests::{Fleet, Gateway, GatewayBuilder, Lines, PolicyFile, RedisServer, Upstream, endpoint};

use collector::{Collector, Span};

/// The spans that a mail has in every topology, each with the one that it is part of.
const PARENTS: [(&str, &str); 8] = [
    ("transaction", "smtp session"),
    ("verdict check", "transaction"),
    ("verdict route", "transaction"),
    ("upstream recipients", "transaction"),
    ("upstream connect", "upstream recipients"),
    ("upstream message", "transaction"),
    ("verdict report", "transaction"),
    ("store check", "verdict check_recipients"),
];

/// What is between the edge and the verdict, if they are apart.
const APART: [(&str, &str); 3] = [
    ("verdict check_recipients", "verdict check"),
    ("verdict get_route", "verdict route"),
    ("verdict report_outcome", "verdict report"),
];

fn transaction(lines: &Lines) -> Value {
    lines.wait("the transaction", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == "transaction").then_some(line)
    })
}

/// Greylisting is on and lets this one pass: the store is asked, and the mail is delivered.
fn policy(upstream: &Upstream) -> String {
    PolicyFile::to(upstream.endpoint)
        .greylisting("{mode: Always, delay: 1h}")
        .domain("enforcement: Monitor")
        .text()
}

/// There is a span of this name that is part of one of the other.
#[track_caller]
fn part_of(spans: &[Span], name: &str, parent: &str) {
    let above = |span: &Span| spans.iter().find(|above| above.id == span.parent && above.trace == span.trace);
    let is_it = |span: &&Span| span.name == name && above(span).is_some_and(|above| above.name == parent);
    assert!(spans.iter().any(|span| is_it(&span)), "no {name} in {parent}: {spans:#?}");
}

/// Whatever could tell who wrote to whom, from where.
#[track_caller]
fn tells_nobody(spans: &[Span]) {
    for span in spans {
        for (key, value) in &span.attributes {
            let words = ["127.", "sender", "example", "anna", "bert", "client", "mx."];
            let said = words.iter().find(|word| value.contains(**word));
            assert!(said.is_none(), "{}: {key} = {value}", span.name);
        }
    }
}

fn names(table: &[&[(&'static str, &'static str)]]) -> Vec<&'static str> {
    let below = table.iter().flat_map(|rows| rows.iter().map(|(name, _)| *name));
    below.chain(["smtp session"]).collect()
}

#[test]
fn one_mail_is_one_trace_over_edge_verdict_store_and_upstream() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let collector = Collector::start();
    let fleet = Fleet::builder(&redis.url())
        .edge_flag("--otlp-endpoint", collector.url())
        .edge_flag("--trace-sample-ratio", 1)
        .verdict_flag("--otlp-endpoint", collector.url())
        .start(&policy(&upstream));
    let mut client = fleet.client();
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n").code, 250);
    client.ask(221, "QUIT");
    let spans = collector.wait(&names(&[&PARENTS, &APART]));

    for (name, parent) in PARENTS.iter().chain(&APART) {
        part_of(&spans, name, parent);
    }
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 1, "{spans:#?}");
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert!(matches!(roots.as_slice(), [root] if root.name == "smtp session"), "{roots:#?}");
    for span in &spans {
        // The spans of the service are called after its methods.
        let of_verdict = span.name.starts_with("store ") || span.name.contains('_');
        assert_eq!(span.role, if of_verdict { "verdict" } else { "edge" }, "{}", span.name);
    }
    tells_nobody(&spans);
    let line = transaction(fleet.lines());
    assert_eq!(line["trace_id"], spans[0].trace.as_str(), "{line}");
    // The same id as in the reply and in the message.
    let span = spans.iter().find(|span| span.name == "transaction").unwrap();
    assert_eq!(span.attributes["torwart.id"], line["id"].as_str().unwrap());
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn one_process_makes_the_same_trace() {
    let upstream = Upstream::start();
    let collector = Collector::start();
    let gateway = tracing(&collector.url(), "1").start(&policy(&upstream));
    let mut client = gateway.client();
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n").code, 250);
    client.ask(221, "QUIT");
    let spans = collector.wait(&names(&[&PARENTS]));
    for (name, parent) in PARENTS {
        // Nothing is between the question and the store.
        part_of(&spans, name, if parent == "verdict check_recipients" { "verdict check" } else { parent });
    }
    tells_nobody(&spans);
    assert_eq!(transaction(gateway.lines())["trace_id"], spans[0].trace.as_str());
}

/// `run`, which has all the spans that there are in one process.
fn tracing(url: &str, ratio: &str) -> GatewayBuilder {
    Gateway::run_only().flag("--otlp-endpoint", url).flag("--trace-sample-ratio", ratio)
}

#[test]
fn what_is_not_sampled_reaches_no_collector() {
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let collector = Collector::start();
    let mut fleet = Fleet::builder(&redis.url())
        .edge_flag("--otlp-endpoint", collector.url())
        .edge_flag("--trace-sample-ratio", 0)
        .verdict_flag("--otlp-endpoint", collector.url())
        .start(&policy(&upstream));
    let mut client = fleet.client();
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n").code, 250);
    client.ask(221, "QUIT");
    assert_eq!(transaction(fleet.lines())["trace_id"], Value::Null);
    // Whatever they had, they send it at their end.
    for part in fleet.edges.iter_mut().chain(&mut fleet.verdicts) {
        part.signal("TERM");
        assert!(part.process().wait(torwart_tests::PATIENCE).success());
    }
    assert!(collector.spans().is_empty(), "{:#?}", collector.spans());
}

#[test]
fn a_collector_that_is_dead_or_hangs_costs_no_mail() {
    let upstream = Upstream::start();
    let dead = endpoint();
    let hanging = TcpListener::bind(endpoint()).unwrap();
    for address in [dead, hanging.local_addr().unwrap()] {
        let gateway = tracing(&format!("http://{address}"), "1").start(&policy(&upstream));
        for _ in 0..20 {
            let mut client = gateway.client();
            let reply = client.mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n");
            assert_eq!(reply.code, 250, "{reply}");
        }
        assert_eq!(gateway.get("/readyz").0, 200);
        gateway.wait_metrics("lost spans are counted", |metrics| {
            metrics.sum("torwart_trace_spans_dropped_total", &[]) > 0.0
        });
        let (status, lines) = gateway.stop();
        assert!(status.success(), "{}", lines.join("\n"));
        assert!(lines.iter().any(|line| line.contains("traces were lost")), "{}", lines.join("\n"));
    }
}
