//! The gateway in one process: what `run` serves with and `demo` shows.
//!
//! ```text
//!   policy files -> PolicyWatch -> Loader -> Engine (verdict) <- Edge (SMTP) -> upstreams
//!                                              |                   |
//!                                            store              mail log
//!   admin port: Registry, readiness, policy view
//! ```

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use torwart_core::Verdicts;
use torwart_edge::{
    BareNewline, BindError, DrainState, Edge, MailLog, MailLogError, MailLogOptions, MailLogWriter, Settings,
};
use torwart_policy::load::SourceFile;
use torwart_verdict::{Clock, Engine, Store, StoreSpec, SystemClock, open_store};

use crate::admin::{self, Admin};
use crate::config::EdgeConfig;
use crate::own_addresses::own_addresses;
use crate::policy_files;
use crate::policy_load::{Audience, Loader};
use crate::policy_state::PolicyState;
use crate::policy_watch::PolicyWatch;

/// Where the policy comes from.
#[derive(Debug)]
pub(crate) enum PolicySource {
    /// Watched while running.
    Files(Vec<PathBuf>),
    /// Fixed.
    Text { name: String, text: String },
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) policy: PolicySource,
    pub(crate) store: StoreSpec,
    pub(crate) store_key_files: Vec<PathBuf>,
    pub(crate) store_timeout: Duration,
    pub(crate) edge: EdgeConfig,
    pub(crate) mail_log: MailLogOptions,
}

/// Why the gateway can't start: one line for each reason.
#[derive(Debug)]
pub(crate) struct StartError(pub(crate) Vec<String>);

/// A running gateway. It serves until [`Gateway::stop`].
pub(crate) struct Gateway {
    smtp: Vec<SocketAddr>,
    admin: SocketAddr,
    edge: Arc<Edge>,
    edge_task: JoinHandle<()>,
    watch: Option<PolicyWatch>,
    log_writer: MailLogWriter,
    /// Begins the drain.
    shutdown: CancellationToken,
    /// Ends what serves people and probes, after the drain.
    end: CancellationToken,
}

/// The last lines of the mail log may take this long to be written.
const LOG_LIMIT: Duration = Duration::from_secs(3);

// === impl Gateway ===

impl Gateway {
    /// Loads the policy, opens the store, binds every port and serves. `log` takes the mail log.
    pub(crate) async fn start(
        options: Options,
        log: impl Write + Send + 'static,
    ) -> Result<Self, StartError> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let admin = Arc::new(Admin::new(registry.clone()));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);

        let mut loader = Loader::new(
            options.edge.smtp_listen.clone(),
            Arc::clone(&clock),
            PolicyState::beside(&options.store),
        );
        let (files, paths) = match options.policy {
            PolicySource::Files(paths) => (None, paths),
            PolicySource::Text { name, text } => (Some(SourceFile { name, content: Ok(text) }), Vec::new()),
        };
        let seen = policy_files::fingerprint(&paths);
        let files = files.map_or_else(|| policy_files::read(&paths), |file| vec![file]);
        let compiled = loader.load(files).map_err(StartError)?;

        let verdict = torwart_verdict::Options {
            store: open(options.store, Arc::clone(&clock)).await?,
            clock,
            key_files: options.store_key_files,
            store_timeout: options.store_timeout,
            own_addresses: own_addresses(&options.edge.smtp_listen),
        };
        let engine = Arc::new(Engine::start(verdict, &registry).await?);
        let (mail_log, log_writer) = MailLog::start(log, options.mail_log, &registry)?;
        let fixed_hostname = options.edge.hostname.is_some();
        let hostname =
            options.edge.hostname.clone().unwrap_or_else(|| Arc::clone(&compiled.policy.gateway.hostname));
        let verdicts = Arc::clone(&engine) as Arc<dyn Verdicts>;
        let edge = Edge::bind(settings(&options.edge, hostname), verdicts, mail_log, &registry);
        let listener = TcpListener::bind(options.edge.admin_listen).await;
        let (edge, listener) = all_bound(edge, listener, options.edge.admin_listen)?;

        let admin_address = listener.local_addr()?;
        let audience =
            Audience { engine, edge: Arc::clone(&edge), admin: Arc::clone(&admin), fixed_hostname };
        audience.announce(compiled);
        // Not before the store is ours and every port is bound.
        loader.keep();
        let watch = if paths.is_empty() { None } else { Some(watch_policy(paths, seen, loader, audience)?) };

        let (shutdown, end) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(admin::serve(listener, Arc::clone(&admin), end.clone()));
        // Bound and with a policy: whoever connects now is served.
        admin.ready.store(true, Ordering::Relaxed);
        tokio::spawn(follow_drain(admin, edge.drain_state()));
        Ok(Self {
            smtp: edge.local_addrs().to_vec(),
            admin: admin_address,
            edge_task: tokio::spawn(Arc::clone(&edge).run(shutdown.clone())),
            edge,
            watch,
            log_writer,
            shutdown,
            end,
        })
    }

    pub(crate) fn smtp_addresses(&self) -> &[SocketAddr] {
        &self.smtp
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Reads policy and certificates again. Returns at once.
    pub(crate) fn reload(&self) {
        if let Some(watch) = &self.watch {
            watch.reload();
        }
        let edge = Arc::clone(&self.edge);
        spawn_blocking(move || edge.reload_certificates());
    }

    /// Stops taking mail and waits until what is under way has ended, as [`DrainState`] tells. Then everything
    /// that is remembered or logged is written.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        if self.edge_task.await.is_err() {
            tracing::error!("the edge failed");
        }
        self.end.cancel();
        if let Some(watch) = self.watch {
            let _ = timeout(LOG_LIMIT, spawn_blocking(move || watch.stop())).await;
        }
        drop(self.edge);
        let written = timeout(LOG_LIMIT, spawn_blocking(move || self.log_writer.finish())).await;
        if written.is_err() {
            tracing::error!("the last lines of the mail log could not be written");
        }
    }
}

/// On a thread of its own: a disk that hangs holds up this, but no signal that ends the process.
async fn open(store: StoreSpec, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StartError> {
    match spawn_blocking(move || open_store(&store, clock)).await {
        Ok(opened) => opened.map_err(|error| format!("--store: {error}").into()),
        Err(failure) => Err(format!("--store: {failure}").into()),
    }
}

/// Keeps `/readyz` in step with the edge.
async fn follow_drain(admin: Arc<Admin>, mut state: watch::Receiver<DrainState>) {
    loop {
        let ready = state.borrow_and_update().is_ready();
        admin.ready.store(ready, Ordering::Relaxed);
        // An error is the edge's end.
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Watches `paths` and lets `audience` know of every change.
fn watch_policy(
    paths: Vec<PathBuf>,
    seen: u64,
    mut loader: Loader,
    audience: Audience,
) -> io::Result<PolicyWatch> {
    PolicyWatch::start(paths, seen, move |files| match loader.load(files) {
        Ok(compiled) => {
            audience.announce(compiled);
            loader.keep();
        }
        Err(mistakes) => audience.refuse(&mistakes),
    })
}

/// All that could not be bound, at once.
fn all_bound(
    edge: Result<Arc<Edge>, Vec<BindError>>,
    admin: io::Result<TcpListener>,
    admin_address: SocketAddr,
) -> Result<(Arc<Edge>, TcpListener), StartError> {
    match (edge, admin) {
        (Ok(edge), Ok(admin)) => Ok((edge, admin)),
        (edge, admin) => {
            let edge = edge.err().unwrap_or_default().into_iter().map(|error| error.to_string());
            let admin = admin.err().map(|error| format!("--admin-listen {admin_address}: {error}"));
            Err(StartError(edge.chain(admin).collect()))
        }
    }
}

fn settings(config: &EdgeConfig, hostname: Arc<str>) -> Settings {
    Settings {
        listen: config.smtp_listen.clone(),
        hostname,
        certificates: config.certificates.clone(),
        proxy_protocol_from: config.proxy_protocol_from.clone(),
        bare_newline: config.bare_newline,
        max_message_size: config.max_message_size,
        max_connections: config.max_connections,
        max_connections_per_network: config.max_connections_per_network,
        drain_delay: config.drain_delay,
        drain_timeout: config.drain_timeout,
        ..Settings::default()
    }
}

// === impl Options ===

impl Options {
    /// Free ports of loopback, nothing kept, and no delay at the end.
    pub(crate) fn on_loopback(policy: PolicySource) -> Self {
        let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let defaults = Settings::default();
        Self {
            policy,
            store: StoreSpec::Memory,
            store_key_files: Vec::new(),
            store_timeout: Duration::from_millis(100),
            edge: EdgeConfig {
                smtp_listen: vec![free_port],
                admin_listen: free_port,
                hostname: None,
                certificates: Vec::new(),
                proxy_protocol_from: Vec::new(),
                bare_newline: BareNewline::Reject,
                max_message_size: defaults.max_message_size,
                max_connections: defaults.max_connections,
                max_connections_per_network: defaults.max_connections_per_network,
                drain_delay: Duration::ZERO,
                drain_timeout: Duration::ZERO,
            },
            mail_log: MailLogOptions::default(),
        }
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
