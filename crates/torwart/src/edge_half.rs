//! The half of the gateway that takes mail: sockets, sessions, mail log. `run` and `edge` have it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use torwart_core::Verdicts;
use torwart_edge::{DrainState, Edge, MailLog, MailLogOptions, MailLogWriter, Settings};

use crate::admin::Admin;
use crate::config::EdgeConfig;
use crate::process::{StartError, WRITE_LIMIT};

/// What the edge tells of its sessions.
#[derive(Clone, Debug)]
pub(crate) struct Telling {
    pub(crate) mail_log: MailLogOptions,
    /// The part of all sessions that is traced; `None`: no trace is made.
    pub(crate) trace_sample_ratio: Option<f64>,
}

/// Bound, but nobody is served yet.
pub(crate) struct BoundEdge {
    edge: Arc<Edge>,
    log_writer: MailLogWriter,
}

/// Takes mail until [`RunningEdge::stop`].
pub(crate) struct RunningEdge {
    edge: Arc<Edge>,
    log_writer: MailLogWriter,
    task: JoinHandle<()>,
    /// Begins the drain.
    shutdown: CancellationToken,
}

// === impl BoundEdge ===

impl BoundEdge {
    /// Binds every port and reads every certificate. `log` takes the mail log. Must be called inside a tokio runtime.
    pub(crate) fn bind(
        config: &EdgeConfig,
        hostname: Arc<str>,
        verdicts: Arc<dyn Verdicts>,
        telling: Telling,
        log: impl Write + Send + 'static,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let (mail_log, log_writer) = MailLog::start(log, telling.mail_log, registry)?;
        let settings = Settings {
            listen: config.smtp_listen.clone(),
            listen_direct: config.smtp_listen_direct.clone(),
            hostname,
            certificates: config.certificates.clone(),
            proxy_protocol_from: config.proxy_protocol_from.clone(),
            bare_newline: config.bare_newline,
            max_message_size: config.max_message_size,
            max_connections: config.max_connections,
            max_connections_per_network: config.max_connections_per_network,
            spool: config.spool.clone(),
            drain_delay: config.drain.delay,
            drain_timeout: config.drain.timeout,
            trace_sample_ratio: telling.trace_sample_ratio,
            ..Settings::default()
        };
        let edge = Edge::bind(settings, verdicts, mail_log, registry);
        let edge = edge.map_err(|errors| StartError(errors.iter().map(ToString::to_string).collect()))?;
        Ok(Self { edge, log_writer })
    }

    pub(crate) fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Whoever connects from now on is served, and `admin` says so as long as that is so.
    pub(crate) fn serve(self, admin: Arc<Admin>) -> RunningEdge {
        let Self { edge, log_writer } = self;
        let shutdown = CancellationToken::new();
        admin.serving.store(true, Ordering::Relaxed);
        tokio::spawn(follow_drain(admin, edge.drain_state()));
        let task = tokio::spawn(Arc::clone(&edge).run(shutdown.clone()));
        RunningEdge { edge, log_writer, task, shutdown }
    }
}

/// Keeps `/readyz` in step with the edge.
async fn follow_drain(admin: Arc<Admin>, mut state: watch::Receiver<DrainState>) {
    loop {
        let ready = state.borrow_and_update().is_ready();
        admin.serving.store(ready, Ordering::Relaxed);
        // An error is the edge's end.
        if state.changed().await.is_err() {
            return;
        }
    }
}

// === impl RunningEdge ===

impl RunningEdge {
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.edge.local_addrs()
    }

    /// Reads the certificates again. Returns at once.
    pub(crate) fn reload(&self) {
        let edge = Arc::clone(&self.edge);
        spawn_blocking(move || edge.reload_certificates());
    }

    /// Stops taking mail and waits until what is under way has ended, as [`DrainState`] tells. What comes back still
    /// has lines to write: see [`LastLines::write`].
    pub(crate) async fn stop(self) -> LastLines {
        self.shutdown.cancel();
        if self.task.await.is_err() {
            tracing::error!("the edge failed");
        }
        LastLines(self.log_writer)
    }
}

/// The mail log after the last session.
pub(crate) struct LastLines(MailLogWriter);

impl LastLines {
    pub(crate) async fn write(self) {
        if timeout(WRITE_LIMIT, spawn_blocking(move || self.0.finish())).await.is_err() {
            tracing::error!("the last lines of the mail log could not be written");
        }
    }
}
