//! Watching policy files: what has changed is read again, within 2 seconds.
//!
//! ```text
//!   notify event ---\
//!   every second ----> fingerprint differs? -> wait until it stands still -> read -> on_change
//!   SIGHUP ---------/  (not asked)
//! ```
//!
//! The file system's events make it quick; the poll makes it certain, since events differ by system and are lost
//! when a directory is replaced. All of it runs on a thread of its own: reading and compiling may take a second.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use torwart_policy::load::SourceFile;

use crate::policy_files;

/// The thread that watches. Dropping it lets the thread end.
#[derive(Debug)]
pub(crate) struct PolicyWatch {
    wake: SyncSender<Wake>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Event,
    Poll,
    Reload,
    Stop,
}

/// A change is live within 2 s even where no event comes: this, the rest below, and a second for compiling.
const POLL: Duration = Duration::from_millis(800);
/// Whoever writes several files, or one in several steps, is given this long to go on.
const REST: Duration = Duration::from_millis(60);
/// A directory that never rests is read all the same.
const MOST_RESTS: usize = 6;
/// Events that come together need only one look.
const WAKES: usize = 8;

// === impl PolicyWatch ===

impl PolicyWatch {
    /// Watches `paths`, which had the fingerprint `seen` when they were last read. `on_change` is called on the
    /// watching thread with what the paths hold now.
    pub(crate) fn start(
        paths: Vec<PathBuf>,
        seen: u64,
        on_change: impl FnMut(Vec<SourceFile>) + Send + 'static,
    ) -> io::Result<Self> {
        let (wake, wakes) = sync_channel(WAKES);
        let watcher = watcher(&paths, wake.clone());
        let thread = std::thread::Builder::new().name("policy".to_owned()).spawn(move || {
            let _watcher = watcher;
            watch(&paths, seen, &wakes, on_change);
        })?;
        Ok(Self { wake, thread: Some(thread) })
    }

    /// Reads everything again, changed or not.
    pub(crate) fn reload(&self) {
        // A full queue means that a look is due anyway, and that look sees the same files.
        let _ = self.wake.try_send(Wake::Reload);
    }

    /// Ends the thread; a look that is under way is finished first.
    pub(crate) fn stop(mut self) {
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(
    paths: &[PathBuf],
    mut seen: u64,
    wakes: &Receiver<Wake>,
    mut on_change: impl FnMut(Vec<SourceFile>),
) {
    loop {
        let wake = match wakes.recv_timeout(POLL) {
            Ok(wake) => wake,
            Err(RecvTimeoutError::Timeout) => Wake::Poll,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if wake == Wake::Stop {
            return;
        }
        if wake == Wake::Event {
            // Events may come by the thousand, from a log file in the same directory for one.
            sleep(REST);
        }
        if wake == Wake::Reload || policy_files::fingerprint(paths) != seen {
            seen = settled(paths);
            on_change(policy_files::read(paths));
        }
    }
}

/// Waits until the files stand still, but not for ever. The result is older than what is read next, so a change
/// in between is seen at the next look.
fn settled(paths: &[PathBuf]) -> u64 {
    let mut last = policy_files::fingerprint(paths);
    for _ in 0..MOST_RESTS {
        sleep(REST);
        let now = policy_files::fingerprint(paths);
        if now == last {
            break;
        }
        last = now;
    }
    last
}

/// Without it there is still the poll.
fn watcher(paths: &[PathBuf], wake: SyncSender<Wake>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| is_change(event.kind)) {
            let _ = wake.try_send(Wake::Event);
        }
    };
    let mut watcher = match notify::recommended_watcher(on_event) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "the policy files can't be watched; they are looked at every second instead");
            return None;
        }
    };
    for directory in policy_files::directories(paths) {
        watch_directory(&mut watcher, &directory);
    }
    Some(watcher)
}

fn watch_directory(watcher: &mut RecommendedWatcher, directory: &Path) {
    if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
        let directory = directory.display();
        tracing::warn!(%directory, %error, "can't be watched; it is looked at every second instead");
    }
}

/// Our own reading is an event, too.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc::channel;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_change_is_seen_and_an_unchanged_directory_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let paths = vec![directory.path().to_path_buf()];
        let (found, readings) = channel();
        let seen = policy_files::fingerprint(&paths);
        let watch = PolicyWatch::start(paths, seen, move |reading| found.send(reading).unwrap()).unwrap();

        fs::write(&file, "two").unwrap();
        assert_eq!(readings.recv_timeout(LIMIT).unwrap()[0].content.as_deref(), Ok("two"));

        fs::write(directory.path().join("tmp"), "three").unwrap();
        fs::rename(directory.path().join("tmp"), &file).unwrap();
        assert_eq!(readings.recv_timeout(LIMIT).unwrap()[0].content.as_deref(), Ok("three"));

        fs::remove_file(&file).unwrap();
        assert!(readings.recv_timeout(LIMIT).unwrap().is_empty());

        // Nothing changed since: the next reading is the one that was asked for, and it is the only one.
        watch.reload();
        assert!(readings.recv_timeout(LIMIT).unwrap().is_empty());
        watch.stop();
        assert!(readings.try_recv().is_err(), "an unchanged directory was read again");
    }
}
