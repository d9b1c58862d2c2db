//! The process's limit of open files, and what it means for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors beside those of client connections and the upstream connection that each may need: listeners,
/// store, files, admin port, the runtime's own, and clients that are being turned away.
const OTHER_FILES: u64 = 128;

/// Raises the limit to what the process may have, and returns how many of the wanted connections fit into it. Without
/// that, clients would be accepted whose mail finds no file descriptor, and others not at all.
pub(crate) fn make_room(max_connections: usize) -> usize {
    let limit = raise();
    let fitting = fitting(limit, max_connections);
    if fitting < max_connections {
        tracing::warn!(
            open_files = limit,
            wanted = max_connections,
            taken = fitting,
            "the limit of open files (ulimit -n) is too low for --max-connections, which is lowered"
        );
    }
    fitting
}

/// The soft limit is then the hard one, unless the system will not have it. `None` is no limit.
pub(crate) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files can't be raised");
            current
        }
    }
}

/// One at least: a gateway that takes nobody is of no use.
fn fitting(limit: Option<u64>, wanted: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = limit.saturating_sub(OTHER_FILES) / 2;
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_room_for_an_upstream_connection_too() {
        for (limit, wanted, fit) in [
            (None, 20_000, 20_000),
            (Some(40_128), 20_000, 20_000),
            (Some(40_127), 20_000, 19_999),
            (Some(1024), 20_000, 448),
            (Some(1024), 10, 10),
            (Some(64), 10, 1),
        ] {
            assert_eq!(fitting(limit, wanted), fit, "{limit:?}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.current.map_or(512, |current| current / 2);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), ..before }).unwrap();
        assert_eq!(raise(), before.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
