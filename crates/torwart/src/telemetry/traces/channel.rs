//! The connection to the collector: lazily opened, opened again by itself, with the same TLS as everything else here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use torwart_proto::names::{Remember, SystemNames};
use tower::service_fn;

use crate::config::OtlpEndpoint;

/// A collector in the same cluster answers within milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A collector that is gone without a word is noticed after so long without traffic.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What gRPC speaks (RFC 7540 section 3.3).
const ALPN: &[u8] = b"h2";

/// Where it is; looked up again for each connection.
struct Collector {
    names: SystemNames,
    host: String,
    port: u16,
}

// === impl Collector ===

impl Collector {
    async fn tcp(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&*self.names.sockets(&self.host, self.port).await?).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn encrypted(
        &self,
        tls: &TlsConnector,
        name: ServerName<'static>,
    ) -> io::Result<TlsStream<TcpStream>> {
        tls.connect(name, self.tcp().await?).await
    }
}

/// Those that browsers trust.
pub(super) fn public_authorities() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// Must be called inside a tokio runtime. Each call over the channel may take `limit`.
pub(super) fn open(
    endpoint: &OtlpEndpoint,
    authorities: RootCertStore,
    limit: Duration,
) -> Result<Channel, String> {
    let said = |error: tonic::transport::Error| error.to_string();
    // The scheme is only what the connector makes of it; what the collector sees of it is the origin.
    let plain = OtlpEndpoint { encrypted: false, ..endpoint.clone() };
    let origin = endpoint.to_string().parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let settings = Endpoint::from_shared(plain.to_string())
        .map_err(said)?
        .origin(origin)
        .timeout(limit)
        .http2_keep_alive_interval(KEEPALIVE);
    let collector = Arc::new(Collector {
        names: SystemNames::new(Remember::Nothing, CONNECT_LIMIT),
        host: endpoint.host.clone(),
        port: endpoint.port,
    });
    if !endpoint.encrypted {
        let connect = service_fn(move |_| {
            let collector = Arc::clone(&collector);
            async move { within_limit(async { Ok(TokioIo::new(collector.tcp().await?)) }).await }
        });
        return Ok(settings.connect_with_connector_lazy(connect));
    }
    let tls = TlsConnector::from(Arc::new(tls_config(authorities).map_err(|error| error.to_string())?));
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| error.to_string())?;
    let connect = service_fn(move |_| {
        let (collector, tls, name) = (Arc::clone(&collector), tls.clone(), name.clone());
        async move { within_limit(async { Ok(TokioIo::new(collector.encrypted(&tls, name).await?)) }).await }
    });
    Ok(settings.connect_with_connector_lazy(connect))
}

async fn within_limit<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CONNECT_LIMIT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn tls_config(authorities: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
