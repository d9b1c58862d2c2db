//! Traces to a collector: OTLP over gRPC, with `--otlp-endpoint` only.
//!
//! ```text
//!   span ends -> Bounded (at most QUEUE wait) -> a thread gathers batches -> Counted -> OTLP
//! ```
//!
//! A collector that is slow or gone costs spans, which are counted, and a line in the log once a minute. Nobody waits
//! for it. Which sessions are traced has been decided by then, at the edge: see `torwart_proto::trace`.

mod channel;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use prometheus::{IntCounterVec, Opts, Registry};
use rustls::RootCertStore;
use tokio::task::spawn_blocking;
use torwart_proto::trace::TARGET;
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::OtlpEndpoint;

/// Makes spans and sends them. [`Traces::layer`] is what makes them.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    dropped: Dropped,
}

/// Spans that may wait: some 4 MiB, and half a minute of a hundred traced sessions a second.
const QUEUE: usize = 8192;
/// Spans in one call: some 256 KiB, far below the 4 MiB that a gRPC server takes.
const BATCH: usize = 512;
/// A trace can be looked at some seconds after its end.
const GATHER: Duration = Duration::from_secs(2);
/// A collector that has not taken a batch by then will not.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last spans.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// One line in the log about lost spans in this time.
const QUIET: Duration = Duration::from_secs(60);

/// The processor behind it has room for all that it lets through.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    dropped: Dropped,
}

/// Counts what the collector did not take.
#[derive(Debug)]
struct Counted<E> {
    inner: E,
    waiting: Arc<AtomicUsize>,
    dropped: Dropped,
    last_line: std::sync::Mutex<Option<Instant>>,
}

/// `torwart_trace_spans_dropped_total`, and how many of them no line in the log has told of.
#[derive(Clone, Debug)]
struct Dropped {
    counter: IntCounterVec,
    untold: Arc<AtomicU64>,
}

// === impl Traces ===

impl Traces {
    /// Nothing is connected before the first span. Must be called inside a tokio runtime, whose end is the end of all
    /// exports. `role` is the subcommand, `instance` the pod or machine.
    pub(crate) fn start(
        endpoint: &OtlpEndpoint,
        role: &'static str,
        instance: Option<&str>,
    ) -> Result<Self, String> {
        Self::start_trusting(channel::public_authorities(), endpoint, role, instance)
    }

    fn start_trusting(
        authorities: RootCertStore,
        endpoint: &OtlpEndpoint,
        role: &'static str,
        instance: Option<&str>,
    ) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("--otlp-endpoint {endpoint}: {error}");
        let exporter = OtlpExporter::builder()
            .with_tonic()
            .with_channel(channel::open(endpoint, authorities, EXPORT_LIMIT).map_err(|error| failed(&error))?)
            .with_timeout(EXPORT_LIMIT)
            .build()
            .map_err(|error| failed(&error))?;
        let dropped = Dropped::new().map_err(|error| failed(&error))?;
        let mut resource = Resource::builder().with_service_name("torwart").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("torwart.role", role),
        ]);
        if let Some(instance) = instance {
            resource = resource.with_attribute(KeyValue::new("service.instance.id", instance.to_owned()));
        }
        Ok(Self::with_exporter(exporter, resource.build(), dropped))
    }

    fn with_exporter(exporter: impl SpanExporter + 'static, resource: Resource, dropped: Dropped) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Counted {
            inner: exporter,
            waiting: Arc::clone(&waiting),
            dropped: dropped.clone(),
            last_line: std::sync::Mutex::new(None),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(GATHER)
            .build();
        let inner = BatchSpanProcessor::builder(counted).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Bounded { inner, waiting, dropped: dropped.clone() })
            // Who made the root of a trace has chosen it.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        Self { provider, dropped }
    }

    /// Turns the spans of [`torwart_proto::trace`], and nothing else, into spans that are sent.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let ours = |metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == TARGET;
        OpenTelemetryLayer::new(self.provider.tracer("torwart"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter_fn(ours).with_max_level_hint(LevelFilter::INFO))
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.dropped.counter.clone()))
    }

    /// Sends what is waiting, but waits no longer than [`FLUSH_LIMIT`]. No span is taken afterwards.
    pub(crate) async fn finish(self) {
        let sent = spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_LIMIT)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!("the last traces could not be sent");
        }
    }
}

// === impl Dropped ===

impl Dropped {
    fn new() -> prometheus::Result<Self> {
        let help = "Spans of traces that were made and did not reach the collector";
        let counter = IntCounterVec::new(Opts::new("torwart_trace_spans_dropped_total", help), &["why"])?;
        for why in ["queue_full", "not_taken"] {
            counter.with_label_values(&[why]).reset();
        }
        Ok(Self { counter, untold: Arc::new(AtomicU64::new(0)) })
    }

    fn lost(&self, why: &str, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.counter.with_label_values(&[why]).inc_by(spans);
        self.untold.fetch_add(spans, Ordering::Relaxed);
    }
}

// === impl Bounded ===

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::AcqRel) < QUEUE {
            self.inner.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            // No line in the log from here: this may be the end of a span that the log's own code ends.
            self.dropped.lost("queue_full", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

// === impl Counted ===

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        let result = self.inner.export(batch).await;
        if result.is_err() {
            self.dropped.lost("not_taken", spans);
        }
        self.tell(result.as_ref().err().map(ToString::to_string).unwrap_or_default());
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E> Counted<E> {
    /// Says how many spans were lost since the last time that it did.
    fn tell(&self, error: String) {
        let mut last = self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        let spans = self.dropped.untold.swap(0, Ordering::Relaxed);
        if spans > 0 {
            *last = Some(Instant::now());
            tracing::warn!(spans, error, "traces were lost because the collector does not take them");
        }
    }
}
