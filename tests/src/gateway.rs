//! The gateway as the tests of SMTP see it: the real binary, in one process or in several.
//!
//! Which of the two is not the tests' business. `TORWART_TEST_TOPOLOGY=split` starts one `torwart edge` and three
//! `torwart verdict` with a Redis for every gateway instead of one `torwart run`; the same tests must pass.

mod split;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::fleet::{PolicyMark, policy_mark, replace};
use crate::part::{self, event};
use crate::{
    Client, Lines, Metrics, PATIENCE, Part, PartBuilder, PolicyFile, Process, RedisServer, endpoint,
    eventually,
};

/// On endpoints of its own, with its policy in a folder of its own.
pub struct Gateway {
    /// The first takes mail.
    parts: Vec<Part>,
    lines: Lines,
    pub smtp: SocketAddr,
    pub admin: SocketAddr,
    policy: PathBuf,
    kept: Kept,
}

/// What lives as long as the gateway.
#[derive(Default)]
struct Kept {
    folders: Vec<TempDir>,
    /// The store, if nobody else brought one.
    _redis: Option<RedisServer>,
}

pub struct GatewayBuilder {
    split: bool,
    flags: Vec<(String, String)>,
    address_space: Option<u64>,
    hosts: Option<PathBuf>,
    log: Option<PathBuf>,
    smtp: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    /// Starts with this policy and no flag beyond what a test needs.
    #[track_caller]
    pub fn start(policy: &PolicyFile) -> Self {
        Self::builder().start(&policy.text())
    }

    pub fn builder() -> GatewayBuilder {
        GatewayBuilder {
            split: std::env::var_os("TORWART_TEST_TOPOLOGY").is_some_and(|topology| topology == "split"),
            flags: Vec::new(),
            address_space: None,
            hosts: None,
            log: None,
            smtp: endpoint(),
            admin: endpoint(),
        }
    }

    /// `torwart run` in every topology, for what only one process has: its own store on disk.
    pub fn run_only() -> GatewayBuilder {
        GatewayBuilder { split: false, ..Self::builder() }
    }

    /// The binary under test: `TORWART_BIN`, or what cargo builds now.
    pub fn binary() -> &'static Path {
        static BINARY: OnceLock<PathBuf> = OnceLock::new();
        BINARY.get_or_init(|| match std::env::var_os("TORWART_BIN") {
            Some(path) => PathBuf::from(path),
            None => build(),
        })
    }

    /// A command line for the binary, without the environment's own settings for it.
    pub fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(Self::binary());
        command.args(arguments);
        clean(&mut command);
        command
    }

    pub fn policy_file(&self) -> &Path {
        &self.policy
    }

    /// Puts another policy in place, the way an editor or a mounted ConfigMap does: by renaming. With several
    /// verdicts it waits until each has taken it or refused it.
    #[track_caller]
    pub fn replace_policy(&self, text: &str) {
        let verdicts = self.parts.get(1..).unwrap_or_default();
        let before: Vec<PolicyMark> = verdicts.iter().map(policy_mark).collect();
        replace(&self.policy, text);
        for (verdict, before) in verdicts.iter().zip(before) {
            eventually("the verdict has seen the policy", || policy_mark(verdict) != before);
        }
    }

    /// The process that takes mail.
    pub fn process(&mut self) -> &mut Process {
        self.first_mut().process()
    }

    /// How many of its processes answer by a policy.
    pub fn verdicts(&self) -> usize {
        self.parts.len().saturating_sub(1).max(1)
    }

    /// What all its processes write.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Of all its processes together.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        match self.parts.as_slice() {
            [only] => only.metrics(),
            parts => Metrics::together(&parts.iter().map(Part::metrics).collect::<Vec<_>>()),
        }
    }

    /// Scrapes until `wanted` holds. The counters have no event of their own, so each scrape is one look.
    #[track_caller]
    pub fn wait_metrics(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        part::wait_metrics(|| self.metrics(), what, wanted)
    }

    /// Status and body of an admin path: `/policy` of whoever has the policy, all else of whoever takes mail.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let part = if path == "/policy" { self.parts.last() } else { self.parts.first() };
        part.unwrap().get(path)
    }

    /// The first transaction in the mail log that `wanted` likes.
    #[track_caller]
    pub fn transaction(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.lines().wait(&format!("transaction: {what}"), |line| event(line, "transaction").filter(&wanted))
    }

    /// The first session without a transaction that `wanted` likes.
    #[track_caller]
    pub fn session(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.lines().wait(&format!("session: {what}"), |line| event(line, "session").filter(&wanted))
    }

    /// All transactions logged so far.
    pub fn transactions(&self) -> Vec<Value> {
        self.lines().all().iter().filter_map(|line| event(line, "transaction")).collect()
    }

    /// Waits for a line about one of its processes whose message contains `text`.
    #[track_caller]
    pub fn notice(&self, text: &str) -> Value {
        part::notice(self.lines(), text)
    }

    /// One connection that is greeted.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::greeted(self.smtp)
    }

    /// SIGTERM, then the end of all its processes. The status is the first that is no success.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, Vec<String>) {
        let mut statuses = Vec::new();
        for part in &mut self.parts {
            part.signal("TERM");
            statuses.push(part.process().wait(PATIENCE));
        }
        self.lines.wait_closed(PATIENCE);
        let worst = statuses.iter().find(|status| !status.success()).or(statuses.first());
        (*worst.unwrap(), self.lines.all())
    }

    fn first_mut(&mut self) -> &mut Part {
        self.parts.first_mut().unwrap()
    }
}

/// Settings of whoever runs the tests must not leak in.
pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TORWART_") {
            command.env_remove(name);
        }
    }
}

fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/e2e-HASH or target/PROFILE/torwart-bench
    let profile = test.ancestors().find(|path| path.ends_with("debug") || path.ends_with("release")).unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "torwart", "--bin", "torwart"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(built.success(), "the binary does not build");
    profile.join("torwart")
}

// === impl GatewayBuilder ===

impl GatewayBuilder {
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.push((name.to_owned(), value.to_string()));
        self
    }

    /// Caps the address space of the process that takes mail with prlimit, in bytes beside those of the program itself:
    /// what `ulimit -v` does.
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// This file is the `/etc/hosts` of the process that takes mail. The caller keeps it.
    pub fn hosts(mut self, file: &Path) -> Self {
        self.hosts = Some(file.to_owned());
        self
    }

    /// Standard output of the process that takes mail goes to a file, as in production, instead of to
    /// [`Gateway::lines`].
    pub fn log_to(mut self, file: &Path) -> Self {
        self.log = Some(file.to_owned());
        self
    }

    pub fn endpoints(mut self, smtp: SocketAddr, admin: SocketAddr) -> Self {
        (self.smtp, self.admin) = (smtp, admin);
        self
    }

    #[track_caller]
    pub fn start(self, policy: &str) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        fs::write(&file, policy).unwrap();
        let mut gateway = self.start_with(&file);
        gateway.kept.folders.push(folder);
        gateway
    }

    /// Starts with a policy file (or folder) that the caller keeps.
    #[track_caller]
    pub fn start_with(self, policy: &Path) -> Gateway {
        if self.split {
            return split::start(self, policy);
        }
        let lines = Lines::new();
        let run = Part::run().flag("--policy", policy.display());
        let run = self.flags.iter().fold(run, |run, (name, value)| run.flag(name, value));
        let run = self.taking_mail(run, &lines).start();
        self.made(vec![run], lines, policy, Kept::default())
    }

    /// The part that peers can reach.
    fn taking_mail(&self, part: PartBuilder, lines: &Lines) -> PartBuilder {
        let mut part = part.endpoints(self.smtp, self.admin).sharing(lines);
        if let Some(bytes) = self.address_space {
            part = part.address_space(bytes);
        }
        if let Some(hosts) = &self.hosts {
            part = part.hosts(hosts);
        }
        if let Some(log) = &self.log {
            part = part.log_to(log);
        }
        part
    }

    fn made(self, parts: Vec<Part>, lines: Lines, policy: &Path, kept: Kept) -> Gateway {
        let (smtp, admin) = (self.smtp, self.admin);
        Gateway { parts, lines, smtp, admin, policy: policy.to_owned(), kept }
    }
}
