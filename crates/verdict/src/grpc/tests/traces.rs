use std::sync::Mutex;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use torwart_proto::trace;
use tracing::Instrument as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// Keeps what has ended.
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

impl Ended {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|span| span.name.to_string()).collect()
    }

    fn find(&self, name: &str) -> SpanData {
        self.0.lock().unwrap().iter().find(|span| span.name == name).cloned().unwrap()
    }
}

/// Spans of this thread, as the binary with a collector makes them.
fn collect() -> (Ended, tracing::subscriber::DefaultGuard) {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
    let ours = Targets::new().with_target(trace::TARGET, tracing::Level::INFO);
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_filter(ours);
    (ended, tracing::subscriber::set_default(tracing_subscriber::registry().with(layer)))
}

#[tokio::test]
async fn a_traced_call_has_a_span_of_the_verdict_and_one_of_the_store() {
    let (ended, _guard) = collect();
    let setup = start().await;
    let mut client = setup.verdict();
    let session = trace::root("session");
    let mut question = Request::new(recipients_request(CLIENT, &[BOB]));
    trace::inject(&session, question.metadata_mut());
    patiently(client.check_recipients(question)).await.unwrap();
    let mut report = Request::new(report_request(DeliveryResult::Delivered));
    trace::inject(&session, report.metadata_mut());
    patiently(client.report_outcome(report)).await.unwrap();
    drop(session);
    until(|| ended.names().contains(&"session".to_owned())).await;
    let session = ended.find("session").span_context;
    for (call, store) in
        [("verdict check_recipients", "store check"), ("verdict report_outcome", "store deliver")]
    {
        let (call, store) = (ended.find(call), ended.find(store));
        assert_eq!(call.span_context.trace_id(), session.trace_id());
        assert_eq!(call.parent_span_id, session.span_id());
        assert_eq!(store.parent_span_id, call.span_context.span_id());
    }
}

#[tokio::test]
async fn a_call_that_is_not_traced_makes_no_span() {
    let (ended, _guard) = collect();
    let setup = start().await;
    let mut client = setup.verdict();
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    let mut unsampled = Request::new(recipients_request(CLIENT, &[BOB]));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    unsampled.metadata_mut().insert("traceparent", parent.parse().unwrap());
    patiently(client.check_recipients(unsampled)).await.unwrap();
    assert_eq!(ended.names(), [] as [&str; 0]);
}

#[tokio::test]
async fn in_one_process_the_store_is_part_of_the_session() {
    let (ended, _guard) = collect();
    let setup = start_with(Some(mk_broken(false)), |_| {}).await;
    let session = trace::root("session");
    let question = mk_question(CLIENT, ANNA, &[BOB]);
    torwart_core::Verdicts::check_recipients(&*setup.engine, question)
        .instrument(session.clone())
        .await
        .unwrap();
    drop(session);
    let store = ended.find("store check");
    assert_eq!(store.parent_span_id, ended.find("session").span_context.span_id());
    assert_eq!(store.status, opentelemetry::trace::Status::error("io"));
}
