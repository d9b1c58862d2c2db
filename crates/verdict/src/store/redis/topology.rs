//! Which server a node's connection goes to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;

use crate::store::StoreError;

use super::dial::{Access, Role};
use super::url::Server;

/// How to find the server.
#[derive(Debug)]
pub(super) enum Way {
    To(Server),
    /// To the primary, whichever it is at the moment.
    Sentinels {
        sentinels: Vec<Server>,
        name: Box<str>,
        first: AtomicUsize,
    },
}

// === impl Way ===

impl Way {
    pub(super) fn sentinels(sentinels: &[Server], name: &str) -> Self {
        Self::Sentinels { sentinels: sentinels.to_vec(), name: name.into(), first: AtomicUsize::new(0) }
    }

    /// Whether this is still the server to ask. Without an answer it is.
    pub(super) async fn leads_to(&self, server: &Server, access: &Arc<Access>) -> bool {
        let Self::Sentinels { sentinels, name, first } = self else { return true };
        let place = first.load(Ordering::Relaxed) % sentinels.len().max(1);
        match sentinels.get(place) {
            Some(sentinel) => {
                access.ask_sentinel(sentinel, name).await.map_or(true, |found| found == *server)
            }
            None => true,
        }
    }

    /// A connection to a server that takes writes, as far as it says.
    pub(super) async fn connect(
        &self,
        access: &Arc<Access>,
        lost: &Arc<Notify>,
    ) -> Result<(MultiplexedConnection, Server), StoreError> {
        match self {
            Self::To(server) => Ok((connect_to_primary(access, server, lost).await?, server.clone())),
            Self::Sentinels { sentinels, name, first } => {
                ask_around(access, sentinels, name, first, lost).await
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(server) => server.fmt(f),
            Self::Sentinels { name, .. } => f.write_str(name),
        }
    }
}

/// One Sentinel after the other, until one names a server that is in fact the primary: one that is cut off from the
/// others may name an old one. The next attempt begins with the one that was right, or else with another.
async fn ask_around(
    access: &Arc<Access>,
    sentinels: &[Server],
    name: &str,
    first: &AtomicUsize,
    lost: &Arc<Notify>,
) -> Result<(MultiplexedConnection, Server), StoreError> {
    let start = first.load(Ordering::Relaxed);
    let mut tried: Vec<Server> = Vec::new();
    let mut worst = None;
    let places = (0..sentinels.len()).map(|place| (start + place) % sentinels.len());
    for (place, sentinel) in places.filter_map(|place| Some((place, sentinels.get(place)?))) {
        let found = match access.ask_sentinel(sentinel, name).await {
            Ok(server) if tried.contains(&server) => continue,
            Ok(server) => {
                let connected = connect_to_primary(access, &server, lost).await;
                tried.push(server.clone());
                connected.map(|connection| (connection, server))
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                first.store(place, Ordering::Relaxed);
                return Ok(found);
            }
            // What a server said is worth more than that a Sentinel said nothing.
            Err(error) if worst.is_none() || !matches!(error, StoreError::Disconnected(_)) => {
                worst = Some(error)
            }
            Err(_) => {}
        }
    }
    first.store(start + 1, Ordering::Relaxed);
    Err(worst.unwrap_or_else(|| StoreError::Disconnected("there is no Sentinel to ask".into())))
}

async fn connect_to_primary(
    access: &Arc<Access>,
    server: &Server,
    lost: &Arc<Notify>,
) -> Result<MultiplexedConnection, StoreError> {
    match access.connect(server, Arc::clone(lost)).await? {
        (_, Role::Replica) => Err(StoreError::ReadOnly),
        (connection, Role::Primary | Role::Unknown) => Ok(connection),
    }
}
