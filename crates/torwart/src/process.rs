//! What all long-running commands share: why they can't start, the admin port, and that a signal ends them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use torwart_edge::{ClientError, MailLogError};
use torwart_verdict::GrpcError;

use crate::admin::{self, Admin};

/// Something that serves until it is told to stop.
pub(crate) trait Service {
    /// Reads policy and certificates again. Returns at once.
    fn reload(&self);

    /// Takes nothing new and waits until what is under way has ended; then everything that is remembered or logged is
    /// written.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// Why a command can't start: one line for each reason.
#[derive(Debug)]
pub(crate) struct StartError(pub(crate) Vec<String>);

/// The admin port, bound and not served.
pub(crate) struct AdminPort(TcpListener);

/// Serves the admin port until it is dropped.
pub(crate) struct RunningAdmin {
    pub(crate) address: SocketAddr,
    _end: DropGuard,
}

/// What is remembered or logged last may take so long to be written.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(3);

/// Metrics of the process itself are in it.
pub(crate) fn registry() -> Result<Registry, StartError> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// Both, or all that is wrong with either.
pub(crate) fn both<A, B>(a: Result<A, StartError>, b: Result<B, StartError>) -> Result<(A, B), StartError> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(StartError(a.err().into_iter().chain(b.err()).flat_map(|error| error.0).collect())),
    }
}

// === impl AdminPort ===

impl AdminPort {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Self).map_err(|error| format!("--admin-listen {address}: {error}").into())
    }

    pub(crate) fn serve(self, admin: Arc<Admin>) -> io::Result<RunningAdmin> {
        let (address, end) = (self.0.local_addr()?, CancellationToken::new());
        tokio::spawn(admin::serve(self.0, admin, end.clone()));
        Ok(RunningAdmin { address, _end: end.drop_guard() })
    }
}

// === impl StartError ===

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for StartError {}

impl From<String> for StartError {
    fn from(reason: String) -> Self {
        Self(vec![reason])
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<prometheus::Error> for StartError {
    fn from(error: prometheus::Error) -> Self {
        Self(vec![format!("metrics can't be registered: {error}")])
    }
}

impl From<torwart_verdict::StartError> for StartError {
    fn from(error: torwart_verdict::StartError) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<MailLogError> for StartError {
    fn from(error: MailLogError) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<GrpcError> for StartError {
    fn from(error: GrpcError) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<ClientError> for StartError {
    fn from(error: ClientError) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<torwart_operator::StartError> for StartError {
    fn from(error: torwart_operator::StartError) -> Self {
        Self(vec![error.to_string()])
    }
}
