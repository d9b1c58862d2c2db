//! What goes over the wire besides the question.

use std::sync::Arc;

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use torwart_core::Verdicts;
use torwart_proto::tls::{ClientTls, ClientTlsFiles};
use torwart_proto::trace;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use super::harness::{Names, Server, client, named, recipients, settings, soon, start};

#[tokio::test]
async fn the_trace_goes_along_if_there_is_one() {
    let server = Server::start("1").await;
    let client = client(&[&server]);
    let parent = || {
        let metadata = server.script.state().metadata.lock().unwrap();
        metadata.get("traceparent").map(|value| value.to_str().unwrap().to_owned())
    };
    client.check_recipients(recipients()).await.unwrap();
    assert_eq!(parent(), None);

    let provider = SdkTracerProvider::builder().build();
    let layer =
        tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_context_activation(false);
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let span = trace::root("verdict check");
    let id = trace::trace_id(&span).unwrap();
    client.check_recipients(recipients()).instrument(span).await.unwrap();
    assert!(parent().is_some_and(|parent| parent.contains(&id)), "{:?}", parent());
}

#[tokio::test]
async fn the_scheme_decides_about_tls() {
    // the first byte of a TLS handshake (RFC 8446 section 5.1), and of HTTP/2 (RFC 9113 section 3.4)
    let (handshake, preface) = (0x16, b'P');
    let tls = || Some(ClientTls::load(ClientTlsFiles::default(), "torwart-verdict").unwrap());
    for (scheme, tls, first) in [
        ("http", None, preface),
        ("http", tls(), preface),
        ("https", tls(), handshake),
        ("dns", None, preface),
        ("dns", tls(), handshake),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut settings = settings(&[]);
        settings.urls = vec![format!("{scheme}://127.0.0.1:{port}").parse().unwrap()];
        settings.tls = tls;
        let client = start(settings);
        let mut question = client.check_recipients(recipients());
        let byte = soon(async {
            tokio::select! {
                _ = &mut question => unreachable!(),
                byte = async { listener.accept().await.unwrap().0.read_u8().await.unwrap() } => byte,
            }
        })
        .await;
        assert_eq!(byte, first, "{scheme}");
    }
}

#[tokio::test]
async fn several_urls_are_one_set_of_addresses() {
    let [a, b] = Server::fleet().await;
    let names = Names::new(&[&a, &b]);
    let mut settings = named(&names, a.address.port());
    settings.urls.push(a.url());
    let client = start(settings);
    names.asked().await;
    let backends = Arc::clone(&client.backends);
    backends.refresh_metrics();
    for _ in 0..20 {
        client.check_recipients(recipients()).await.unwrap();
    }
    assert!(a.script.all_calls() > 0 && b.script.all_calls() > 0);
    assert_eq!(client.metrics.counted(crate::verdict_client::balancer::Standing::Healthy), 2);
}
