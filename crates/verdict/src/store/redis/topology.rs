//! Which server a node's connection goes to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;

use crate::store::StoreError;

use super::dial::{Access, Role};
use super::link::join_all;
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

    /// Whether this is still the server to ask: until more Sentinels name another, which in fact is a primary, than
    /// name this one. So one Sentinel that is cut off from the others moves nobody, and one that is silent keeps
    /// nobody. The next connection then begins with a Sentinel that names the other.
    pub(super) async fn leads_to(&self, server: &Server, access: &Arc<Access>) -> bool {
        let Self::Sentinels { sentinels, name, first } = self else { return true };
        let answers = join_all(sentinels.iter().map(|sentinel| access.ask_sentinel(sentinel, name))).await;
        let named: Vec<Option<Server>> = answers.into_iter().map(Result::ok).collect();
        let Some((place, other)) = outvoting(server, &named) else { return true };
        if connect_to_primary(access, other, &Arc::default()).await.is_err() {
            return true;
        }
        first.store(place, Ordering::Relaxed);
        false
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

/// The server that most Sentinels name, if more do than name this one; and the place of one that does.
fn outvoting<'a>(server: &Server, named: &'a [Option<Server>]) -> Option<(usize, &'a Server)> {
    let votes = |wanted: &Server| named.iter().flatten().filter(|other| *other == wanted).count();
    let all = named.iter().enumerate().filter_map(|(place, other)| Some((place, other.as_ref()?)));
    all.max_by_key(|(_, other)| votes(other)).filter(|(_, other)| votes(other) > votes(server))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sentinels_must_name_another_than_name_this_one() {
        let mk = |port| Server { host: "h".into(), port };
        // What each says (0: nothing), while we are with server 1; where to go, by the word of which.
        let table: [(&[u16], Option<u16>); 9] = [
            (&[1, 1, 1], None),
            (&[0, 0, 0], None),
            (&[0, 2, 2], Some(2)),
            (&[1, 2, 2], Some(2)),
            (&[0, 0, 2], Some(2)),
            (&[2, 1, 1], None),
            (&[1, 0, 2], None),
            (&[1, 3, 2], None),
            (&[], None),
        ];
        for (said, wanted) in table {
            let named: Vec<_> = said.iter().map(|port| (*port > 0).then(|| mk(*port))).collect();
            let found = outvoting(&mk(1), &named);
            assert_eq!(found.map(|(_, server)| server.port), wanted, "{said:?}");
            assert!(found.is_none_or(|(place, _)| said[place] == 2), "{said:?}");
        }
    }
}
