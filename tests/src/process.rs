//! A child process that does not outlive its test.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Lines, PATIENCE};

/// Both output streams are collected; dropping it ends the process.
pub struct Process {
    child: Child,
    name: String,
    lines: Lines,
}

impl Process {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::start_with(command, None, None)
    }

    /// Standard output goes to a file; only the error stream is collected.
    #[track_caller]
    pub fn start_logging(command: &mut Command, file: &Path) -> Self {
        Self::start_with(command, Some(file), None)
    }

    /// Standard output goes to a file, if there is one, and only the error stream is collected. The lines also go to
    /// a list that several processes share.
    #[track_caller]
    pub(crate) fn start_with(command: &mut Command, log: Option<&Path>, shared: Option<&Lines>) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = log.map_or_else(Stdio::piped, |file| fs::File::create(file).unwrap().into());
        let mut child =
            command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).spawn().unwrap_or_else(
                |error| panic!("{name} does not start (is it installed? see tests/run): {error}"),
            );
        let lines = Lines::new();
        let lists = || std::iter::once(&lines).chain(shared).cloned().collect();
        if let Some(output) = child.stdout.take() {
            Lines::follow_into(lists(), output);
        }
        Lines::follow_into(lists(), child.stderr.take().unwrap());
        Self { child, name, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by its name, as in `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for the end. Panics when it does not come.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        match self.try_wait(patience) {
            Some(status) => status,
            None => panic!("{} still runs after {patience:?}:\n{}", self.name, self.lines.all().join("\n")),
        }
    }

    fn try_wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + patience;
        // The pipes close with the process unless it left children behind; then `try_wait` decides.
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            let left = end.checked_duration_since(Instant::now())?;
            if self.lines.wait_closed(left.min(Duration::from_millis(50))) {
                // Closed its outputs, so its end is at hand: let it have the processor.
                std::thread::yield_now();
            }
        }
    }

    /// Resident memory now, in bytes.
    pub fn resident(&self) -> u64 {
        status_field(self.id(), "VmRSS:")
    }

    /// The most that was ever resident, in bytes.
    pub fn peak_resident(&self) -> u64 {
        status_field(self.id(), "VmHWM:")
    }

    /// Kills it at once, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal("TERM");
            if self.try_wait(Duration::from_secs(5).min(PATIENCE)).is_none() {
                self.kill();
            }
        }
    }
}

/// There is no safe call for this in the standard library, so the program does it.
fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &id.to_string()]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "kill is not there");
}

fn status_field(id: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    let kibibytes: u64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    kibibytes * 1024
}
