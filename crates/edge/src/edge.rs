//! The process's edge: everything that its sessions share, and its life from bind to the last session's end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use prometheus::Registry;
use rustls_pki_types::UnixTime;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use torwart_core::{Id, IdSource, Verdicts};
use torwart_smtp::SessionConfig;

use crate::drain::{DrainOrders, DrainState, LAST_REPLY};
use crate::farewell::Farewells;
use crate::greeting::Greetings;
use crate::listener::{self, Door};
use crate::log::MailLog;
use crate::metrics::Metrics;
use crate::permits::Permits;
use crate::reports::Reports;
use crate::settings::Settings;
use crate::spool::Spool;
use crate::tls::{self, CertificateError, Certificates};
use crate::trace::Sampling;
use crate::upstream::{UpstreamMetrics, Upstreams};

/// The bound edge. [`Edge::run`] serves.
pub struct Edge {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<(TcpListener, Door)>>,
    addresses: Vec<SocketAddr>,
    certificates: Option<Arc<Certificates>>,
    state: watch::Sender<DrainState>,
    drain_delay: std::time::Duration,
    drain_timeout: std::time::Duration,
}

/// Why the edge cannot start. Each message names the flag.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{flag} {address}: {source}")]
    Listen { flag: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("--tls-cert/--tls-key: {0}")]
    Certificate(#[from] CertificateError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("no randomness from the operating system: {0}")]
    Randomness(getrandom::Error),
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What every session holds an `Arc` of.
pub(crate) struct Shared {
    pub(crate) verdicts: Arc<dyn Verdicts>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) config: ArcSwap<SessionConfig>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    pub(crate) greetings: Greetings,
    pub(crate) permits: Arc<Permits>,
    pub(crate) farewells: Farewells,
    pub(crate) log: MailLog,
    pub(crate) metrics: Metrics,
    pub(crate) sampling: Sampling,
    pub(crate) reports: Reports,
    pub(crate) orders: DrainOrders,
    /// Sessions, and reports of transactions that are still on their way.
    pub(crate) tasks: TaskTracker,
    ids: IdSource,
}

// === impl Edge ===

impl Edge {
    /// Binds every listener and loads every certificate; reports all mistakes at once. Must be called inside a tokio
    /// runtime. Nothing is accepted before [`Edge::run`].
    pub fn bind(
        settings: Settings,
        verdicts: Arc<dyn Verdicts>,
        log: MailLog,
        registry: &Registry,
    ) -> Result<Arc<Self>, Vec<BindError>> {
        let mut mistakes = Vec::new();
        let mut bound = Vec::new();
        let balanced = settings.listen.iter().map(|address| ("--smtp-listen", *address, Door::Balanced));
        let direct =
            settings.listen_direct.iter().map(|address| ("--smtp-listen-direct", *address, Door::Direct));
        for (flag, address, door) in balanced.chain(direct) {
            match listener::bind(address) {
                Ok((address, listener)) => bound.push((address, (listener, door))),
                Err(source) => mistakes.push(BindError::Listen { flag, address, source }),
            }
        }
        let certificates = Certificates::load(&settings.certificates).unwrap_or_else(|bad| {
            mistakes.extend(bad.into_iter().map(BindError::from));
            None
        });
        let shared = Shared::new(&settings, verdicts, log, certificates.as_ref(), registry);
        if let (Some(certificates), Ok(shared)) = (&certificates, &shared) {
            check_validity(certificates, &shared.metrics);
        }
        let (addresses, listeners) = bound.into_iter().unzip();
        match shared {
            Ok(shared) if mistakes.is_empty() => Ok(Arc::new(Self {
                shared: Arc::new(shared),
                listeners: Mutex::new(listeners),
                addresses,
                certificates,
                state: watch::Sender::new(DrainState::Serving),
                drain_delay: settings.drain_delay,
                drain_timeout: settings.drain_timeout,
            })),
            Ok(_) => Err(mistakes),
            Err(mistake) => {
                mistakes.push(mistake);
                Err(mistakes)
            }
        }
    }

    /// Where it listens, in the order of `Settings::listen` and then of `Settings::listen_direct`.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn drain_state(&self) -> watch::Receiver<DrainState> {
        self.state.subscribe()
    }

    /// Sessions that begin from now on say `name` in banner and Received.
    pub fn set_hostname(&self, name: &str) {
        let current = self.shared.config.load();
        if &*current.hostname != name {
            self.shared
                .config
                .store(Arc::new(SessionConfig { hostname: Arc::from(name), ..(**current).clone() }));
        }
    }

    /// Compares the certificates' files with what is in use, as is done every few seconds anyway. Blocks on the files.
    pub fn reload_certificates(&self) {
        if let Some(certificates) = &self.certificates {
            certificates.reload();
            check_validity(certificates, &self.shared.metrics);
        }
    }

    /// Serves until `shutdown`, then drains: see [`DrainState`]. Returns when no session is left, at the latest
    /// 9 minutes after `drain_timeout`. A second call finds no listener and only waits.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let orders = self.shared.orders.clone();
        let acceptors = TaskTracker::new();
        let listeners = std::mem::take(&mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        for (listener, door) in listeners {
            acceptors.spawn(listener::accept_all(listener, door, Arc::clone(&self.shared)));
        }
        if let Some(certificates) = &self.certificates {
            acceptors.spawn(watch_certificates(Arc::clone(certificates), Arc::clone(&self.shared)));
        }
        acceptors.close();

        shutdown.cancelled().await;
        self.enter(DrainState::Delay);
        tokio::time::sleep(self.drain_delay).await;

        orders.stop_accepting.cancel();
        acceptors.wait().await;
        self.enter(DrainState::Draining);
        orders.end_idle.cancel();
        let sessions = &self.shared.tasks;
        sessions.close();
        if tokio::time::timeout(self.drain_timeout, sessions.wait()).await.is_err() {
            orders.end_all.cancel();
            if tokio::time::timeout(LAST_REPLY, sessions.wait()).await.is_err() {
                tracing::error!(
                    sessions = sessions.len(),
                    "sessions are still waiting for an upstream's last reply"
                );
            }
        }
        self.enter(DrainState::Stopped);
    }

    fn enter(&self, state: DrainState) {
        tracing::info!(?state, "drain");
        self.state.send_replace(state);
    }
}

async fn watch_certificates(certificates: Arc<Certificates>, shared: Arc<Shared>) {
    let stop = shared.orders.stop_accepting.clone();
    while stop.run_until_cancelled(tokio::time::sleep(tls::POLL)).await.is_some() {
        let reloaded = Arc::clone(&certificates);
        if let Err(error) = tokio::task::spawn_blocking(move || reloaded.reload()).await {
            tracing::error!(%error, "reading the certificates again failed");
        }
        check_validity(&certificates, &shared.metrics);
    }
}

fn check_validity(certificates: &Certificates, metrics: &Metrics) {
    metrics.certificates_not_after(&certificates.not_after());
    certificates.sound_alarm(UnixTime::now());
}

fn random() -> Result<u64, BindError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(BindError::Randomness)?;
    Ok(u64::from_ne_bytes(bytes))
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(
        settings: &Settings,
        verdicts: Arc<dyn Verdicts>,
        log: MailLog,
        certificates: Option<&Arc<Certificates>>,
        registry: &Registry,
    ) -> Result<Self, BindError> {
        let (id_seed, sampling_seed) = (random()?, random()?);
        let upstream_metrics = Arc::new(UpstreamMetrics::new(registry)?);
        Ok(Self {
            verdicts,
            upstreams: Upstreams::new(settings.upstream.clone(), upstream_metrics),
            spool: Spool::new(settings.spool.clone(), registry)?,
            config: ArcSwap::from_pointee(settings.session_config()),
            tls: certificates.map(Certificates::acceptor).transpose()?,
            proxy_protocol_from: settings.proxy_protocol_from.clone(),
            greetings: Greetings::default(),
            permits: Permits::new(settings.max_connections, settings.max_connections_per_network),
            farewells: Farewells::default(),
            log,
            metrics: Metrics::new(registry)?,
            sampling: Sampling::new(settings.trace_sample_ratio, sampling_seed),
            reports: Reports::new(registry)?,
            orders: DrainOrders::default(),
            tasks: TaskTracker::new(),
            ids: IdSource::new(id_seed),
        })
    }

    pub(crate) fn new_id(&self) -> Id {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.ids.next(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether this peer must begin with a PROXY header.
    pub(crate) fn is_proxy(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.proxy_protocol_from.iter().any(|network| network.contains(&ip))
    }
}
