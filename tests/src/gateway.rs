//! The real binary, running.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Client, Lines, Metrics, PATIENCE, PolicyFile, Process, endpoint, metrics, net};

/// `torwart run` on endpoints of its own, with its policy in a folder of its own.
pub struct Gateway {
    process: Process,
    pub smtp: SocketAddr,
    pub admin: SocketAddr,
    policy: PathBuf,
    _folder: Option<TempDir>,
}

pub struct GatewayBuilder {
    arguments: Vec<String>,
    address_space: Option<u64>,
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
            arguments: Vec::new(),
            address_space: None,
            log: None,
            smtp: endpoint(),
            admin: endpoint(),
        }
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

    /// Puts another policy in place, the way an editor or a mounted ConfigMap does: by renaming.
    pub fn replace_policy(&self, text: &str) {
        let next = self.policy.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &self.policy).unwrap();
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn lines(&self) -> &Lines {
        self.process.lines()
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::scrape(self.admin).unwrap_or_else(|error| panic!("no metrics: {error}"))
    }

    /// Scrapes until `wanted` holds. The counters have no event of their own, so each scrape is one look.
    #[track_caller]
    pub fn wait_metrics(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        let end = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            if wanted(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < end, "never {what}:\n{}", metrics.text());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Status and body of an admin path.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        metrics::get(self.admin, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
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

    /// Waits for a line about the process whose message contains `text`.
    #[track_caller]
    pub fn notice(&self, text: &str) -> Value {
        self.lines().wait(text, |line| event(line, "log").filter(|log| says(log, text)))
    }

    /// One connection that is greeted.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::greeted(self.smtp)
    }

    /// SIGTERM, then the end of the process.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, Vec<String>) {
        self.process.signal("TERM");
        let status = self.process.wait(PATIENCE);
        self.process.lines().wait_closed(PATIENCE);
        (status, self.process.lines().all())
    }
}

fn event(line: &str, name: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok().filter(|value| value["event"] == name)
}

fn says(log: &Value, text: &str) -> bool {
    log["message"].as_str().is_some_and(|message| message.contains(text))
}

/// Settings of whoever runs the tests must not leak in.
fn clean(command: &mut Command) {
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
        self.arguments.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Caps the address space with prlimit, in bytes: what `ulimit -v` does.
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Standard output goes to a file, as in production, instead of to [`Gateway::lines`].
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
        gateway._folder = Some(folder);
        gateway
    }

    /// Starts with a policy file (or folder) that the caller keeps.
    #[track_caller]
    pub fn start_with(self, policy: &Path) -> Gateway {
        let binary = Gateway::binary();
        let mut command = match self.address_space {
            Some(bytes) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--as={bytes}")).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        clean(&mut command);
        command.arg("run").arg("--policy").arg(policy);
        command.args(["--smtp-listen", &self.smtp.to_string(), "--admin-listen", &self.admin.to_string()]);
        command.args(&self.arguments);
        if !self.arguments.iter().any(|argument| argument == "--drain-delay") {
            // A test stops its gateway when it is done; nothing balances load in front of it.
            command.args(["--drain-delay", "0s"]);
        }
        if let Some(log) = &self.log {
            let process = Process::start_logging(&mut command, log);
            net::wait_listening(self.smtp);
            return Gateway {
                process,
                smtp: self.smtp,
                admin: self.admin,
                policy: policy.to_owned(),
                _folder: None,
            };
        }
        let process = Process::start(&mut command);
        let gateway =
            Gateway { process, smtp: self.smtp, admin: self.admin, policy: policy.to_owned(), _folder: None };
        gateway
            .lines()
            .wait("\"ready\"", |line| event(line, "log").filter(|log| log["message"] == "ready").map(|_| ()));
        gateway
    }
}
