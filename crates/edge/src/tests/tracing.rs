//! The spans of a session, as a collector would get them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, Status, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use tokio::net::{TcpListener, TcpStream};
use torwart_proto::trace::TARGET;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;

use super::harness::{Client, FakeUpstream, Gateway};
use super::starttls::{files, issue, start_tls};
use crate::trace::{ATTRIBUTES, NAMES};

/// Takes the spans of this thread, and with it of a test's runtime.
struct Collector {
    spans: Ended,
    _guard: DefaultGuard,
}

#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Ended {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Collector {
    fn start() -> Self {
        let spans = Ended::default();
        let provider = SdkTracerProvider::builder().with_span_processor(spans.clone()).build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("test"))
            .with_context_activation(false)
            .with_filter(filter_fn(|metadata| metadata.target() == TARGET));
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        Self { spans, _guard: guard }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.spans.0.lock().unwrap().clone()
    }

    fn only(&self, name: &str) -> SpanData {
        let named: Vec<SpanData> = self.spans().into_iter().filter(|span| span.name == name).collect();
        let [span] = named.as_slice() else { panic!("{} spans {name:?}", named.len()) };
        span.clone()
    }

    /// `name < its parent`, sorted.
    fn tree(&self) -> Vec<String> {
        let spans = self.spans();
        let name_of = |id: SpanId| {
            spans.iter().find(|span| span.span_context.span_id() == id).map_or("", |span| &*span.name)
        };
        let mut tree: Vec<String> =
            spans.iter().map(|span| format!("{} < {}", span.name, name_of(span.parent_span_id))).collect();
        tree.sort();
        tree
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key)?;
    Some(found.value.to_string())
}

async fn traced(upstream: &FakeUpstream, ratio: Option<f64>) -> Gateway {
    Gateway::start_with(&[upstream.address], |settings, _| settings.trace_sample_ratio = ratio).await
}

async fn deliver(client: &mut Client<TcpStream>) {
    client.begin(&["ok"]).await;
    client.say("RCPT TO:<ok2@example.org>", 250).await;
    client.say("DATA", 354).await;
    client.say("Message-ID: <1@example.com>\r\n\r\nhello\r\n.", 250).await;
    client.say("QUIT", 221).await;
}

#[tokio::test]
async fn a_delivery_is_one_trace_and_the_log_has_its_id() {
    let collector = Collector::start();
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = traced(&upstream, Some(1.0)).await;
    deliver(&mut gateway.client().await).await;
    let line = gateway.line().await;
    gateway.stop().await;
    assert_eq!(
        collector.tree(),
        [
            "answering < verdict check",
            "answering < verdict check",
            "learning < verdict report",
            "smtp session < ",
            "transaction < smtp session",
            "upstream connect < upstream recipients",
            "upstream message < transaction",
            "upstream recipients < transaction",
            "upstream recipients < transaction",
            "verdict check < smtp session",
            "verdict check < transaction",
            "verdict check < transaction",
            "verdict report < transaction",
            "verdict route < transaction",
        ]
    );
    let traces: BTreeSet<String> =
        collector.spans().iter().map(|span| span.span_context.trace_id().to_string()).collect();
    assert_eq!(traces.iter().collect::<Vec<_>>(), [line["trace_id"].as_str().unwrap()]);
    let transaction = collector.only("transaction");
    for (key, value) in [
        ("torwart.id", line["id"].as_str().unwrap()),
        ("torwart.code", "250"),
        ("torwart.reason", "accepted"),
        ("torwart.recipients", "2"),
        ("torwart.size", "38"),
    ] {
        assert_eq!(attribute(&transaction, key).as_deref(), Some(value), "{key}");
    }
    let message = collector.only("upstream message");
    assert_eq!(attribute(&message, "torwart.code").as_deref(), Some("250"));
    assert_eq!(attribute(&collector.only("smtp session"), "torwart.outcome").as_deref(), Some("quit"));
    assert!(collector.spans().iter().all(|span| span.status == Status::Unset), "nothing failed");
}

#[tokio::test]
async fn no_span_says_who_wrote_to_whom_or_from_where() {
    let collector = Collector::start();
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = traced(&upstream, Some(1.0)).await;
    deliver(&mut gateway.client().await).await;
    gateway.stop().await;
    let known: BTreeSet<&str> = ATTRIBUTES.into_iter().collect();
    for span in collector.spans().iter().filter(|span| NAMES.contains(&&*span.name)) {
        for attribute in &span.attributes {
            let (key, value) = (attribute.key.as_str(), attribute.value.to_string());
            assert!(known.contains(key) || !key.starts_with("torwart."), "{key} is not in the docs");
            for secret in ["@", "127.0.0.1", "alice", "example", "hello"] {
                assert!(!value.contains(secret), "{}: {key}={value}", span.name);
            }
        }
    }
}

#[tokio::test]
async fn the_report_makes_nothing_longer() {
    let collector = Collector::start();
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = traced(&upstream, Some(1.0)).await;
    deliver(&mut gateway.client().await).await;
    gateway.stop().await;
    let (transaction, report) = (collector.only("transaction"), collector.only("verdict report"));
    assert!(transaction.end_time <= report.start_time);
}

#[tokio::test]
async fn a_message_that_stops_half_way_lasts_until_its_client_is_gone() {
    let collector = Collector::start();
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = traced(&upstream, Some(1.0)).await;
    let mut client = gateway.client().await;
    client.begin(&["ok"]).await;
    client.say("DATA", 354).await;
    client.send("half a mess").await;
    let half = SystemTime::now();
    drop(client);
    gateway.line().await;
    gateway.stop().await;
    let (transaction, message) = (collector.only("transaction"), collector.only("upstream message"));
    assert!(half <= message.end_time && message.end_time <= transaction.end_time);
    assert_eq!(attribute(&transaction, "torwart.reason").as_deref(), Some("client_gone"));
}

#[tokio::test]
async fn a_session_without_a_transaction_has_a_trace_too() {
    for (proxy, said, outcome) in [("192.0.2.0/24", "QUIT", "quit"), ("127.0.0.0/8", "EHLO", "proxy_fault")] {
        let collector = Collector::start();
        let mut gateway = Gateway::start_with(&[], |settings, _| {
            settings.trace_sample_ratio = Some(1.0);
            settings.proxy_protocol_from = vec![proxy.parse().unwrap()];
        })
        .await;
        let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
        client.send(&format!("{said}\r\n")).await;
        let line = gateway.line().await;
        gateway.stop().await;
        assert_eq!((&line["event"], &line["outcome"]), (&"session".into(), &outcome.into()));
        let session = collector.only("smtp session");
        assert_eq!(line["trace_id"], session.span_context.trace_id().to_string());
        assert_eq!(attribute(&session, "torwart.id").as_deref(), line["id"].as_str());
        assert_eq!(attribute(&session, "torwart.outcome").as_deref(), Some(outcome));
        assert_eq!(attribute(&session, "torwart.tls"), None);
    }
}

#[tokio::test]
async fn the_session_has_its_tls_version() {
    let collector = Collector::start();
    let folder = tempfile::TempDir::new().unwrap();
    let pair = files(folder.path(), "mx");
    let certificate = issue(folder.path(), "mx.example.net", &pair);
    let mut gateway = Gateway::start_with(&[], |settings, _| {
        settings.trace_sample_ratio = Some(1.0);
        settings.certificates = vec![pair];
    })
    .await;
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    start_tls(client, &certificate, "mx.example.net").await.unwrap().say("QUIT", 221).await;
    gateway.stop().await;
    assert_eq!(attribute(&collector.only("smtp session"), "torwart.tls").as_deref(), Some("TLSv1.3"));
}

#[tokio::test]
async fn a_session_that_is_not_traced_builds_no_span() {
    for ratio in [None, Some(0.0)] {
        let collector = Collector::start();
        let upstream = FakeUpstream::obedient().await;
        let mut gateway = traced(&upstream, ratio).await;
        deliver(&mut gateway.client().await).await;
        assert_eq!(gateway.line().await["trace_id"], serde_json::Value::Null);
        gateway.client().await.say("QUIT", 221).await;
        assert_eq!(gateway.line().await["trace_id"], serde_json::Value::Null);
        gateway.stop().await;
        assert!(collector.spans().is_empty(), "{ratio:?}: {:?}", collector.tree());
    }
}

#[tokio::test]
async fn without_a_collector_a_sampled_session_has_no_trace_id() {
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = traced(&upstream, Some(1.0)).await;
    deliver(&mut gateway.client().await).await;
    assert_eq!(gateway.line().await["trace_id"], serde_json::Value::Null);
}

#[tokio::test]
async fn what_a_dependency_did_not_do_is_marked_as_failed() {
    let collector = Collector::start();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut gateway = Gateway::start_with(&[free], |settings, script| {
        settings.trace_sample_ratio = Some(1.0);
        script.unavailable = true;
    })
    .await;
    let mut client = gateway.client().await;
    client.begin(&[]).await;
    client.say("RCPT TO:<lost@example.org>", 451).await;
    client.say("RCPT TO:<ok@example.org>", 451).await;
    client.say("QUIT", 221).await;
    gateway.stop().await;
    let failed: BTreeSet<String> = collector
        .spans()
        .into_iter()
        .filter_map(|span| match &span.status {
            Status::Error { description } => {
                let stage = attribute(&span, "torwart.stage").unwrap_or_default();
                Some(format!("{} {stage}: {description}", span.name))
            }
            Status::Unset | Status::Ok => None,
        })
        .collect();
    let expected = [
        "upstream connect : not connected",
        "upstream recipients : refused or failed",
        "verdict check connection: no verdict",
        "verdict check recipients: no verdict",
    ];
    assert_eq!(failed.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!(attribute(&collector.only("upstream connect"), "torwart.failure").as_deref(), Some("connect"));
    let refused = collector.only("upstream recipients");
    assert_eq!(attribute(&refused, "torwart.reason").as_deref(), Some("upstream_unreachable"));
}
