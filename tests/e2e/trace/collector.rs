//! A collector: takes spans over OTLP and keeps them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as WireSpan;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use torwart_tests::{PATIENCE, endpoint, wait_listening};

/// One span, as far as a test asks.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: String,
    /// In hex, as the mail log has it.
    pub(super) trace: String,
    pub(super) id: Vec<u8>,
    /// Empty: it is the root.
    pub(super) parent: Vec<u8>,
    /// `torwart.role` of the process that it comes from.
    pub(super) role: String,
    /// Its own attributes, those of its events, and its status.
    pub(super) attributes: BTreeMap<String, String>,
}

pub(super) struct Collector {
    pub(super) endpoint: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

#[derive(Default)]
struct Shared {
    spans: Mutex<Vec<Span>>,
    grown: Condvar,
}

struct Receiver(Arc<Shared>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.spans.lock().unwrap();
        for process in request.into_inner().resource_spans {
            let resource = process.resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
            let role = resource.get("torwart.role").cloned().unwrap_or_default();
            let wire = process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(wire.map(|span| received(span, &role)));
        }
        drop(spans);
        self.0.grown.notify_all();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn received(span: WireSpan, role: &str) -> Span {
    let mut attributes = texts(span.attributes);
    for event in span.events {
        attributes.insert(format!("event {}", event.name), format!("{:?}", texts(event.attributes)));
    }
    if let Some(status) = span.status {
        attributes.insert("status".to_owned(), status.message);
    }
    Span {
        name: span.name,
        trace: span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        id: span.span_id,
        parent: span.parent_span_id,
        role: role.to_owned(),
        attributes,
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}

// === impl Collector ===

impl Collector {
    pub(super) fn start() -> Self {
        let (endpoint, shared) = (endpoint(), Arc::<Shared>::default());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = TraceServiceServer::new(Receiver(Arc::clone(&shared)));
        runtime.spawn(Server::builder().add_service(service).serve(endpoint));
        wait_listening(endpoint);
        Self { endpoint, shared, _runtime: runtime }
    }

    /// For `--otlp-endpoint`.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.endpoint)
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.shared.spans.lock().unwrap().clone()
    }

    /// Waits until a span of each of these names is there, and returns all spans.
    #[track_caller]
    pub(super) fn wait(&self, names: &[&str]) -> Vec<Span> {
        let end = Instant::now() + PATIENCE;
        let mut spans = self.shared.spans.lock().unwrap();
        loop {
            let missing: Vec<_> =
                names.iter().filter(|name| !spans.iter().any(|span| span.name == **name)).collect();
            if missing.is_empty() {
                return spans.clone();
            }
            let left = end.checked_duration_since(Instant::now());
            let Some(left) = left else { panic!("no spans {missing:?} among {spans:#?}") };
            spans = self.shared.grown.wait_timeout(spans, left).unwrap().0;
        }
    }
}
