//! TLS of the channel: certificates that are read again when they change, on both sides.
//!
//! TLS 1.3 only, HTTP/2 by ALPN, no resumption: connections live long, and each new one is checked against the
//! newest files.

mod client;
mod files;
mod names;
mod server;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use self::client::{ClientTls, ClientTlsFiles};
pub use self::files::TlsFileError;
pub use self::server::{ServerTls, ServerTlsFiles};

/// How long a handshake may take: two round trips and a signature. Who is silent for longer holds a place for nothing.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// RFC 9113 section 3.2.
const ALPN: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

async fn within_limit<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(HANDSHAKE, handshake)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")))
}
