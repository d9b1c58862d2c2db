//! How an edge reaches one verdict process: one HTTP/2 connection per address, made when it is first needed and again
//! after it broke; and what may be asked again elsewhere.

mod hearing;
mod not_done;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use self::hearing::Hearing;
pub use self::not_done::{NOT_DONE, is_not_done, not_done};
use crate::tls::ClientTls;

/// How long a channel waits for what. None of it limits a call: that is the caller's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSettings {
    /// For a connection, its TLS handshake and the server's first word included.
    pub connect_timeout: Duration,
    /// Between two pings, also while no call is under way.
    pub keepalive_interval: Duration,
    /// For the answer to a ping. Without one the connection is given up, and the calls on it fail.
    pub keepalive_timeout: Duration,
}

/// What HTTP/2 runs on.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A channel to `address`. Nothing is connected yet: the first call does it, and a call that finds the connection
/// broken makes a new one, with the certificates that are the newest then.
///
/// A call waits for the connection that it needs. If that fails, the call is answered with UNAVAILABLE and
/// [`is_not_done`] is true for it.
pub fn connect(address: SocketAddr, tls: Option<Arc<ClientTls>>, settings: &ChannelSettings) -> Channel {
    // Only told to the server; who is reached, and who it must be, is the connector's business.
    let origin = Uri::try_from(format!("http://{address}"))
        .unwrap_or_else(|_| Uri::from_static("http://torwart-verdict"));
    let limit = settings.connect_timeout;
    let connector = service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = timeout(limit, open(address, tls.as_deref())).await;
            stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        }
    });
    Endpoint::from(origin)
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

async fn open(address: SocketAddr, tls: Option<&ClientTls>) -> io::Result<Hearing<Box<dyn Stream>>> {
    let stream = TcpStream::connect(address).await?;
    // Questions are small and each is waited for.
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        Some(tls) => Box::new(tls.connect(stream).await?),
        None => Box::new(stream),
    };
    Hearing::begin(stream).await
}

// === impl ChannelSettings ===

impl Default for ChannelSettings {
    /// A process of ours in the same cluster answers within milliseconds; who needs a second to take a connection is
    /// better asked later. The pings find a machine that vanished within 15 s, while calls have their own limits.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
        }
    }
}
