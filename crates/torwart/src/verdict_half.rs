//! The half of the gateway that answers: policy, store and engine. `run` and `verdict` have it.
//!
//! ```text
//!   policy files -> PolicyWatch -> Loader --+--> Engine -> store
//!   published ConfigMaps -> ClusterTask ----+
//! ```

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use prometheus::Registry;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use torwart_policy::load::SourceFile;
use torwart_verdict::{Clock, Engine, MessageLimits, Store, SystemClock, open_store};

use crate::admin::Admin;
use crate::config::{ChecksConfig, StoreConfig};
use crate::policy_cluster::{ClusterPolicy, ClusterTask};
use crate::policy_files;
use crate::policy_load::{Audience, Compiled, Loader};
use crate::policy_state::PolicyState;
use crate::policy_watch::PolicyWatch;
use crate::process::{StartError, WRITE_LIMIT};

/// Where the policy comes from.
#[derive(Debug)]
pub(crate) enum PolicySource {
    /// Watched while running.
    Files(PolicyFiles),
    /// What an operator publishes.
    Cluster(ClusterPolicy),
    /// Fixed.
    Text { name: String, text: String },
}

#[derive(Clone, Debug)]
pub(crate) struct PolicyFiles {
    pub(crate) paths: Vec<PathBuf>,
    /// What keeps the accepted policy for the next start; `None`: a file beside a store that is one.
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct VerdictOptions {
    pub(crate) policy: PolicySource,
    pub(crate) store: StoreConfig,
    pub(crate) messages: MessageLimits,
    pub(crate) checks: ChecksConfig,
    /// Where mail is taken in this process: no upstream may be there.
    pub(crate) smtp_listen: Vec<SocketAddr>,
    /// Addresses of the machines that this installation runs on, as far as they are known: no senders.
    pub(crate) own_addresses: Vec<IpAddr>,
}

/// Ready to answer, but nobody has been told of the policy yet.
pub(crate) struct VerdictHalf {
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    origin: Origin,
}

/// What the policy is read from.
enum Origin {
    Files(Box<FromFiles>),
    Cluster(ClusterPolicy),
}

struct FromFiles {
    loader: Loader,
    first: Result<Compiled, Vec<String>>,
    paths: Vec<PathBuf>,
    /// The files' state when `first` was read.
    seen: u64,
}

/// What keeps the policy in step with where it comes from.
pub(crate) enum PolicyTask {
    Fixed,
    /// A thread.
    Files(PolicyWatch),
    Cluster(ClusterTask),
}

// === impl VerdictHalf ===

impl VerdictHalf {
    /// Loads the policy and opens the store. A policy with which nobody can be served is an error, unless
    /// `without_policy`: then questions go without an answer until there is a better one.
    pub(crate) async fn start(
        options: VerdictOptions,
        without_policy: bool,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let VerdictOptions { policy, store, messages, checks, smtp_listen, own_addresses } = options;
        if messages.test_check {
            tracing::warn!(
                "--test-message-check: messages say themselves what becomes of them; it is for tests"
            );
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (text, files) = match policy {
            PolicySource::Files(files) => (None, Ok(files)),
            PolicySource::Text { name, text } => {
                let files = PolicyFiles { paths: Vec::new(), state: None };
                (Some(SourceFile { name, content: Ok(text) }), Ok(files))
            }
            PolicySource::Cluster(cluster) => (None, Err(cluster)),
        };
        let origin = match files {
            Ok(PolicyFiles { paths, state }) => {
                let state = state.map(PolicyState::at).or_else(|| PolicyState::beside(&store.spec));
                let mut loader = Loader::new(smtp_listen, Arc::clone(&clock), state);
                let seen = policy_files::fingerprint(&paths);
                let files = text.map_or_else(|| policy_files::read(&paths), |file| vec![file]);
                let first = loader.load(files);
                if let (Err(mistakes), false) = (&first, without_policy) {
                    return Err(StartError(mistakes.clone()));
                }
                Origin::Files(Box::new(FromFiles { loader, first, paths, seen }))
            }
            Err(cluster) => Origin::Cluster(cluster),
        };
        let (checks, no_servers) = checks.options();
        if let Some(error) = no_servers {
            tracing::warn!(%error, "no DNS server: checks by DNS come to no result");
        }
        let (key_files, store_timeout) = (store.key_files.clone(), store.timeout);
        let options = torwart_verdict::Options {
            store: open(store, Arc::clone(&clock)).await?,
            clock: Arc::clone(&clock),
            key_files,
            store_timeout,
            own_addresses,
            messages,

            checks,
        };
        let engine = Arc::new(Engine::start(options, registry).await?);
        Ok(Self { engine, clock, origin })
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The MailGateway's.
    pub(crate) fn hostname(&self) -> Option<Arc<str>> {
        let Origin::Files(files) = &self.origin else { return None };
        files.first.as_ref().ok().map(|compiled| Arc::clone(&compiled.policy.gateway.hostname))
    }

    /// Puts the policy in force and follows its files. `edge` goes by the MailGateway's hostname. To be called once
    /// every port is bound: what is kept for the next run is that of the process that serves.
    pub(crate) async fn serve(
        self,
        admin: Arc<Admin>,
        edge: Option<Arc<torwart_edge::Edge>>,
    ) -> Result<PolicyTask, StartError> {
        let Self { engine, clock, origin } = self;
        let audience = Audience { engine, admin, edge };
        let FromFiles { mut loader, first, paths, seen } = match origin {
            Origin::Files(files) => *files,
            Origin::Cluster(cluster) => {
                let task = ClusterTask::start(cluster, audience, clock).await?;
                return Ok(PolicyTask::Cluster(task));
            }
        };
        take(&audience, &mut loader, first);
        if paths.is_empty() {
            return Ok(PolicyTask::Fixed);
        }
        let on_change = move |files| {
            let loaded = loader.load(files);
            take(&audience, &mut loader, loaded);
        };
        Ok(PolicyTask::Files(PolicyWatch::start(paths, seen, on_change)?))
    }
}

fn take(audience: &Audience, loader: &mut Loader, loaded: Result<Compiled, Vec<String>>) {
    match loaded {
        Ok(compiled) => {
            audience.announce(compiled);
            loader.keep();
        }
        Err(mistakes) => audience.refuse(&mistakes),
    }
}

/// On a thread of its own: a disk that hangs holds up this, but no signal that ends the process.
async fn open(store: StoreConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StartError> {
    match spawn_blocking(move || open_store(&store.spec, clock, &store.redis)).await {
        Ok(opened) => opened.map_err(|error| format!("--store: {error}").into()),
        Err(failure) => Err(format!("--store: {failure}").into()),
    }
}

// === impl PolicyTask ===

impl PolicyTask {
    /// Reads everything again. Returns at once.
    pub(crate) fn reload(&self) {
        match self {
            Self::Fixed => {}
            Self::Files(watch) => watch.reload(),
            Self::Cluster(task) => task.reload(),
        }
    }

    /// Ends it, and what is remembered is written.
    pub(crate) async fn stop(self) {
        match self {
            Self::Fixed => {}
            Self::Files(watch) => {
                let _ = timeout(WRITE_LIMIT, spawn_blocking(move || watch.stop())).await;
            }
            Self::Cluster(task) => {
                let _ = timeout(WRITE_LIMIT, task.stop()).await;
            }
        }
    }
}
