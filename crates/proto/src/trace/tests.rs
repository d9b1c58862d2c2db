use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanKind, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tracing::Instrument;
use tracing::subscriber::DefaultGuard;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};

use super::*;

/// A collector of this thread's spans, installed as the binary installs its own.
struct Collector {
    finished: Finished,
    _guard: DefaultGuard,
}

#[derive(Clone, Debug, Default)]
struct Finished(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Finished {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Collector {
    fn start() -> Self {
        let finished = Finished::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(finished.clone())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .build();
        let layer = OpenTelemetryLayer::new(provider.tracer("torwart"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO));
        let subscriber = tracing_subscriber::registry().with(layer);
        Self { finished, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.finished.0.lock().unwrap().clone()
    }

    fn span(&self, name: &str) -> SpanData {
        let mut named: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(named.len(), 1, "{name}: {:?}", self.spans());
        named.remove(0)
    }
}

fn metadata(traceparent: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert(TRACEPARENT, traceparent.parse().unwrap());
    metadata
}

#[test]
fn one_trace_goes_from_the_edge_into_the_verdict() {
    let collector = Collector::start();
    let session = root("smtp session");
    let ask = child(&session, "verdict check");
    let mut metadata = MetadataMap::new();
    inject(&ask, &mut metadata);
    let call = remote_child(&metadata, "verdict check_recipients");
    let store = call.in_scope(|| current_child("store check"));
    let trace = trace_id(&session);
    for span in [&ask, &call, &store] {
        assert_eq!(trace_id(span), trace);
    }
    drop((store, call, ask, session));

    let [session, ask, call, store] =
        ["smtp session", "verdict check", "verdict check_recipients", "store check"]
            .map(|name| collector.span(name));
    assert_eq!(Some(session.span_context.trace_id().to_string()), trace);
    assert_eq!(session.parent_span_id, SpanId::INVALID);
    for (span, parent) in [(&ask, &session), (&call, &ask), (&store, &call)] {
        assert_eq!(span.parent_span_id, parent.span_context.span_id(), "{}", span.name);
        assert_eq!(span.span_context.trace_id(), session.span_context.trace_id(), "{}", span.name);
    }
    assert_eq!((session.span_kind, call.span_kind), (SpanKind::Server, SpanKind::Server));
    assert!(call.parent_span_is_remote && !store.parent_span_is_remote);
}

#[tokio::test]
async fn a_child_of_what_is_current_follows_it_through_a_task() {
    let collector = Collector::start();
    let session = root("smtp session");
    async { drop(current_child("verdict check")) }.instrument(session).await;
    let (session, check) = (collector.span("smtp session"), collector.span("verdict check"));
    assert_eq!(check.parent_span_id, session.span_context.span_id());
}

#[test]
fn attributes_and_failures_are_the_span_s_own_and_nothing_else_is_told() {
    let collector = Collector::start();
    let session = root("smtp session");
    attribute(&session, "smtp.code", 451_i64);
    trace_id(&session).unwrap();
    attribute(&session, "outcome", "deferred");
    fail(&session, "verdict_unavailable");
    drop(session);
    let session = collector.span("smtp session");
    let mut told: Vec<String> =
        session.attributes.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    told.sort();
    assert_eq!(told, ["outcome=deferred", "smtp.code=451"]);
    assert_eq!(session.status, Status::error("verdict_unavailable"));
}

#[test]
fn a_session_that_is_not_traced_builds_no_span() {
    let collector = Collector::start();
    let session = Span::none();
    let part = child(&session, "transaction");
    let current = part.in_scope(|| current_child("verdict check"));
    let mut metadata = MetadataMap::new();
    inject(&current, &mut metadata);
    let call = remote_child(&metadata, "verdict check_recipients");
    attribute(&call, "smtp.code", 250_i64);
    fail(&call, "x");
    for span in [part, current, call] {
        assert!(span.is_none() && trace_id(&span).is_none());
    }
    assert!(metadata.is_empty());
    assert!(collector.spans().is_empty());
}

#[test]
fn without_a_collector_no_span_is_built() {
    let none = tracing::subscriber::set_default(tracing_subscriber::registry().with(LevelFilter::WARN));
    let session = root("smtp session");
    let sampled = metadata("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let call = remote_child(&sampled, "verdict check_recipients");
    assert!(session.is_none() && call.is_none());
    drop(none);
    // Somebody takes every span, but it is no collector.
    let _all = tracing::subscriber::set_default(tracing_subscriber::registry());
    assert!(remote_child(&sampled, "verdict check_recipients").is_none());
    let mut metadata = MetadataMap::new();
    inject(&root("smtp session"), &mut metadata);
    assert!(metadata.is_empty());
}

#[test]
fn a_span_of_somebody_else_is_no_parent() {
    let collector = Collector::start();
    let other = span!(target: "h2", Level::INFO, "other");
    assert!(other.in_scope(|| current_child("verdict check")).is_none());
    let _all = tracing::subscriber::set_default(tracing_subscriber::registry());
    let other = span!(target: "h2", Level::INFO, "other");
    assert!(other.in_scope(|| current_child("verdict check")).is_none());
    assert!(collector.spans().is_empty());
}

#[test]
fn only_a_sampled_traceparent_is_followed() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let _collector = Collector::start();
    let followed = [
        format!("00-{TRACE}-b7ad6b7169203331-01"),
        format!("00-{TRACE}-b7ad6b7169203331-03"),
        format!("cc-{TRACE}-b7ad6b7169203331-01"),
        format!("cc-{TRACE}-b7ad6b7169203331-01-what-the-future-will-be-like"),
    ];
    for parent in followed {
        assert_eq!(trace_id(&remote_child(&metadata(&parent), "call")).as_deref(), Some(TRACE), "{parent}");
    }
    let ignored = [
        String::new(),
        "01".to_owned(),
        format!("00-{TRACE}-b7ad6b7169203331-00"),
        format!("00-{TRACE}-b7ad6b7169203331-02"),
        format!("00-{TRACE}-b7ad6b7169203331"),
        format!("00-{TRACE}-b7ad6b7169203331-01-more"),
        format!("00-{TRACE}-b7ad6b7169203331-1"),
        format!("00-{TRACE}-b7ad6b716920333-01"),
        format!("ff-{TRACE}-b7ad6b7169203331-01"),
        format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
        format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-+{}-b7ad6b7169203331-01", &TRACE[1..]),
        format!(" 00-{TRACE}-b7ad6b7169203331-01"),
    ];
    for parent in ignored {
        assert!(remote_child(&metadata(&parent), "call").is_none(), "{parent}");
    }
    let mut bytes = MetadataMap::new();
    bytes.insert(TRACEPARENT, MetadataValue::try_from(&b"00-\xc3\xa9"[..]).unwrap());
    assert!(remote_child(&bytes, "call").is_none());
}
