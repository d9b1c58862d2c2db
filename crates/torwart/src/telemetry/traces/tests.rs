use super::*;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_sdk::error::OTelSdkError;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use torwart_proto::trace;
use tracing_subscriber::layer::SubscriberExt;

/// Keeps the names of what it is given.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

/// Takes nothing.
#[derive(Debug)]
struct Dead;

/// Says when it is given a batch, and takes it only when it is let.
#[derive(Debug)]
struct Stuck {
    given: Sender<usize>,
    gate: Mutex<Receiver<()>>,
}

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch.into_iter().map(|span| span.name.into_owned()));
        Ok(())
    }
}

impl SpanExporter for Dead {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Err(OTelSdkError::InternalFailure("nobody is there".to_owned()))
    }
}

impl SpanExporter for Stuck {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.given.send(batch.len()).unwrap();
        let _ = self.gate.lock().unwrap().recv();
        Ok(())
    }
}

/// Passes on what it is sent.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn traces(exporter: impl SpanExporter + 'static) -> Traces {
    Traces::with_exporter(exporter, Resource::builder_empty().build(), Dropped::new().unwrap())
}

/// Runs `work` where spans are made.
fn traced(traces: &Traces, work: impl FnOnce()) {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(traces.layer()), work);
}

fn dropped(counter: &IntCounterVec, why: &str) -> u64 {
    counter.with_label_values(&[why]).get()
}

#[tokio::test]
async fn only_spans_of_traces_are_sent() {
    let kept = Kept::default();
    let traces = traces(kept.clone());
    traced(&traces, || {
        let root = trace::root("smtp session");
        let child = trace::child(&root, "transaction");
        let _of_a_library = tracing::info_span!("not ours").entered();
        child.in_scope(|| tracing::error!(target: TARGET, "an event"));
    });
    traces.finish().await;
    let names = kept.0.lock().unwrap().clone();
    assert_eq!(names, ["transaction", "smtp session"]);
}

#[tokio::test]
async fn what_the_collector_does_not_take_is_counted() {
    let traces = traces(Dead);
    let counter = traces.dropped.counter.clone();
    traced(&traces, || (0..BATCH + 3).for_each(|_| drop(trace::root("session"))));
    traces.finish().await;
    assert_eq!(dropped(&counter, "not_taken"), BATCH as u64 + 3);
    assert_eq!(dropped(&counter, "queue_full"), 0);
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    let ((given, batches), (open, gate)) = (channel(), channel());
    let traces = traces(Stuck { given, gate: Mutex::new(gate) });
    let counter = traces.dropped.counter.clone();
    traced(&traces, || {
        (0..BATCH).for_each(|_| drop(trace::root("session")));
        // From here on the exporter has its first batch and is stuck.
        let first = batches.recv().unwrap();
        let room = QUEUE - (BATCH - first);
        (0..room + 7).for_each(|_| drop(trace::root("session")));
    });
    assert_eq!(dropped(&counter, "queue_full"), 7);
    drop(open);
    traces.finish().await;
    assert_eq!(dropped(&counter, "queue_full"), 7);
    let taken: usize = batches.try_iter().sum();
    assert_eq!(taken, QUEUE, "all that had room is sent");
}

#[tokio::test]
async fn a_dead_collector_costs_spans_and_nothing_else() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for encrypted in [false, true] {
        let endpoint = OtlpEndpoint { encrypted, host: "127.0.0.1".to_owned(), port: closed.port() };
        let traces = Traces::start(&endpoint, "run", Some("pod")).unwrap();
        let registry = Registry::new();
        traces.register(&registry).unwrap();
        let counter = traces.dropped.counter.clone();
        traced(&traces, || drop(trace::root("session")));
        traces.finish().await;
        assert_eq!(dropped(&counter, "not_taken"), 1, "{encrypted}");
    }
}

#[tokio::test]
async fn a_collector_hears_whose_spans_they_are() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sent, mut received) = mpsc::unbounded_channel();
    let server = Server::builder().add_service(TraceServiceServer::new(Collector(sent)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let endpoint = OtlpEndpoint { encrypted: false, host: "localhost".to_owned(), port };
    let traces = Traces::start(&endpoint, "edge", Some("edge-7")).unwrap();
    let counter = traces.dropped.counter.clone();
    traced(&traces, || drop(trace::root("smtp session")));
    traces.finish().await;
    let request = received.recv().await.unwrap();
    let [of_one] = request.resource_spans.try_into().unwrap();
    let attributes: BTreeMap<String, String> = of_one
        .resource
        .unwrap()
        .attributes
        .into_iter()
        .map(|attribute| (attribute.key, format!("{:?}", attribute.value)))
        .collect();
    for (key, value) in [
        ("service.name", "torwart"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", "edge-7"),
        ("torwart.role", "edge"),
    ] {
        assert!(attributes[key].contains(&format!("\"{value}\"")), "{key}: {attributes:?}");
    }
    assert_eq!(of_one.scope_spans[0].spans[0].name, "smtp session");
    assert_eq!(dropped(&counter, "not_taken"), 0);
}

/// A collector on loopback with this certificate: how the first handshake went, and what came first after it.
async fn hears(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (u16, JoinHandle<std::io::Result<[u8; 3]>>) {
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut first = [0; 3];
        stream.read_exact(&mut first).await?;
        Ok(first)
    });
    (port, heard)
}

#[tokio::test]
async fn a_collector_behind_https_must_be_who_it_says() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["collector.example.net".to_owned()]).unwrap();
    for (shown, trusted, is_spoken_to) in [(&made, true, true), (&made, false, false), (&other, true, false)]
    {
        let (port, heard) = hears(shown).await;
        let mut authorities = channel::public_authorities();
        if trusted {
            authorities.add(shown.cert.der().clone()).unwrap();
        }
        let endpoint = OtlpEndpoint { encrypted: true, host: "localhost".to_owned(), port };
        let traces = Traces::start_trusting(authorities, &endpoint, "run", None).unwrap();
        traced(&traces, || drop(trace::root("session")));
        let finished = tokio::spawn(traces.finish());
        let heard = heard.await.unwrap();
        assert_eq!(heard.ok(), is_spoken_to.then_some(*b"PRI"), "{trusted}");
        finished.await.unwrap();
    }
}
