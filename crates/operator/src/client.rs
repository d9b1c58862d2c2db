//! How operator and follower reach the API server.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::InferConfigError;
use kube::{Client, Config};
use torwart_core::BoxFuture;
use torwart_proto::names::{Remember, SystemNames};
use tower::{BoxError, Service, ServiceBuilder};

/// A connection within a cluster takes milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Whoever reaches the API server by a name: a kubeconfig, or a provider that puts one into KUBERNETES_SERVICE_HOST.
#[derive(Clone)]
struct Names(Arc<SystemNames>);

/// By what the process has: `KUBECONFIG`, or the files of a pod's ServiceAccount. Connects to nothing.
pub(crate) async fn config() -> Result<Config, InferConfigError> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(CONNECT_LIMIT);
    // Whoever waits here knows for how long it may, and what to do instead.
    config.default_retry = false;
    Ok(config)
}

/// What `Client::try_from` makes of it, except that names are looked up as everywhere in this process. Connects to
/// nothing.
pub(crate) fn connect(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // Says that this is not built in.
        return Client::try_from(config);
    }
    let names = Names(Arc::new(SystemNames::new(Remember::Nothing, CONNECT_LIMIT)));
    let mut http = HttpConnector::new_with_resolver(names);
    http.enforce_http(false);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(http)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

// === impl Names ===

impl Service<Name> for Names {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = Arc::clone(&self.0);
        // The connector puts the port in.
        Box::pin(async move { Ok(names.sockets(name.as_str(), 0).await?.into_iter()) })
    }
}
