//! The policy of a cluster: what an operator published, put in force, and kept on disk for a restart without the API
//! server.
//!
//! ```text
//!   API server -> Follower --+--> Audience (engine, admin port)
//!   file of the last run ----+--> Keeper -> file
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use torwart_operator::follow::{self, Follower, Listener, Loaded, News, Source};
use torwart_verdict::Clock;

use crate::policy_load::{Audience, Compiled, view};
use crate::policy_state::{read_text, replace};
use crate::process::StartError;

/// `kube:NAMESPACE/GATEWAY`, and the file that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterPolicy {
    pub(crate) source: Source,
    pub(crate) state: Option<PathBuf>,
}

/// Follows the cluster until it is dropped.
pub(crate) struct ClusterTask {
    follower: JoinHandle<()>,
    again: Arc<Notify>,
    keeper: Option<JoinHandle<()>>,
}

// === impl ClusterTask ===

impl ClusterTask {
    /// Puts in force what an earlier run kept, and follows the cluster from there.
    pub(crate) async fn start(
        policy: ClusterPolicy,
        audience: Audience,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let ClusterPolicy { source, state } = policy;
        let client = follow::client().await.map_err(|error| format!("--policy {source}: {error}"))?;
        let now = move || clock.now();
        let audience = Arc::new(audience);
        let (path, at, hearer) = (state.clone(), now(), Arc::clone(&audience));
        let gateway = source.gateway.clone();
        let kept = spawn_blocking(move || {
            let loaded = read(path.as_deref()?, at)?;
            let found = &loaded.snapshot.gateway.metadata.name;
            if *found != gateway {
                tracing::warn!(
                    found,
                    "the policy of the last run is of another MailGateway; starting without it"
                );
                return None;
            }
            hearer.announce(compiled(&loaded));
            Some(loaded)
        });
        let last = kept.await.map_err(|failure| format!("--policy-state: {failure}"))?;
        let (newest, unwritten) = watch::channel(None);
        let listener: Listener = Arc::new(move |news| match news {
            News::Loaded(loaded) => {
                audience.announce(compiled(&loaded));
                newest.send_replace(Some(loaded));
            }
            News::Kept { why, is_of_policy } => audience.refuse_publication(&why, is_of_policy),
            News::Well => tracing::info!("the policy in force is the one that is published"),
        });
        let again = Arc::new(Notify::new());
        let follower = Follower::new(client, &source, last, Arc::new(now), listener);
        Ok(Self {
            follower: tokio::spawn(follower.run(Arc::clone(&again))),
            again,
            keeper: state.map(|path| tokio::spawn(keep(path, unwritten))),
        })
    }

    /// Looks at what is published now. Returns at once.
    pub(crate) fn reload(&self) {
        self.again.notify_one();
    }

    /// Ends it, and waits until the last policy is on disk.
    pub(crate) async fn stop(mut self) {
        self.follower.abort();
        if let Some(keeper) = self.keeper.take() {
            // It ends with the follower, which is its only source.
            let _ = keeper.await;
        }
    }
}

impl Drop for ClusterTask {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

fn compiled(loaded: &Loaded) -> Compiled {
    let Loaded { publication, snapshot, policy, problems } = loaded;
    Compiled {
        policy: Arc::clone(policy),
        sequence: publication.sequence(),
        view: view(snapshot, problems),
        mistakes: problems.clone(),
        warnings: Vec::new(),
    }
}

// === the file ===

/// Writes the newest, until there will be no more. A disk that hangs holds up nothing but this.
async fn keep(path: PathBuf, mut unwritten: watch::Receiver<Option<Loaded>>) {
    while unwritten.changed().await.is_ok() {
        let Some(loaded) = unwritten.borrow_and_update().clone() else { continue };
        let to = path.clone();
        let written =
            spawn_blocking(move || write(&to, &loaded)).await.unwrap_or_else(|failure| Err(failure.into()));
        if let Err(error) = written {
            let path = path.display();
            tracing::error!(%path, %error, "the policy can't be kept for a restart without the API server");
        }
    }
}

fn write(path: &Path, loaded: &Loaded) -> io::Result<()> {
    replace(path, loaded.to_file()?.as_bytes())
}

/// What an earlier run left. A file that can't be used is reported and otherwise as good as none.
fn read(path: &Path, now: i64) -> Option<Loaded> {
    let useless = |error: &dyn std::fmt::Display| {
        let path = path.display();
        tracing::warn!(%path, %error, "the policy of the last run can't be used; starting without it");
    };
    match read_text(path) {
        Ok(text) => Loaded::from_file(&text, now).map_err(|error| useless(&error)).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            useless(&error);
            None
        }
    }
}
