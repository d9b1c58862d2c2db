//! One process of the binary: `run`, `edge`, `verdict` or `operator`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway::clean;
use crate::{Gateway, Lines, Metrics, PATIENCE, Process, endpoint, metrics, net};

pub struct Part {
    process: Process,
    start: PartBuilder,
    /// Where it takes mail or, if it is a verdict, questions. An operator takes neither.
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

/// How it is started, and started again.
#[derive(Clone)]
pub struct PartBuilder {
    subcommand: &'static str,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    address_space: Option<u64>,
    hosts: Option<PathBuf>,
    log: Option<PathBuf>,
    shared: Option<Lines>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Part {
    pub fn run() -> PartBuilder {
        PartBuilder::new("run")
    }

    /// Without `--verdict`: see [`PartBuilder::asks`].
    pub fn edge() -> PartBuilder {
        PartBuilder::new("edge")
    }

    pub fn verdict(policy: &Path, store: &str) -> PartBuilder {
        PartBuilder::new("verdict").flag("--policy", policy.display()).flag("--store", store)
    }

    /// Without its settings: see [`crate::cluster::Installation::operator`].
    pub fn operator() -> PartBuilder {
        PartBuilder::new("operator")
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        if self.start.log.is_some() {
            net::wait_listening(self.listen);
        } else {
            self.process.lines().wait("\"ready\"", |line| {
                event(line, "log").filter(|log| log["message"] == "ready").map(|_| ())
            });
        }
    }

    /// Kills it at once, as the loss of its machine would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, after its end, with the same arguments at the same addresses, and waits until it is ready.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch_again();
        self.wait_ready();
    }

    #[track_caller]
    pub fn launch_again(&mut self) {
        assert!(!self.process.is_running(), "end it first");
        self.process = self.start.process();
    }

    /// Sends a signal by its name, as in `STOP`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has written since it was last started.
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
        wait_metrics(|| self.metrics(), what, wanted)
    }

    /// Status and body of an admin path.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        metrics::get(self.admin, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Waits for a line about the process whose message contains `text`.
    #[track_caller]
    pub fn notice(&self, text: &str) -> Value {
        notice(self.lines(), text)
    }
}

#[track_caller]
pub(crate) fn wait_metrics(
    scrape: impl Fn() -> Metrics,
    what: &str,
    wanted: impl Fn(&Metrics) -> bool,
) -> Metrics {
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = scrape();
        if wanted(&metrics) {
            return metrics;
        }
        assert!(Instant::now() < end, "never {what}:\n{}", metrics.text());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[track_caller]
pub(crate) fn notice(lines: &Lines, text: &str) -> Value {
    let says = |log: &Value| log["message"].as_str().is_some_and(|message| message.contains(text));
    lines.wait(text, |line| event(line, "log").filter(says))
}

/// The line as JSON, if it is of this kind.
pub(crate) fn event(line: &str, name: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok().filter(|value| value["event"] == name)
}

// === impl PartBuilder ===

impl PartBuilder {
    fn new(subcommand: &'static str) -> Self {
        Self {
            subcommand,
            arguments: Vec::new(),
            environment: Vec::new(),
            address_space: None,
            hosts: None,
            log: None,
            shared: None,
            listen: endpoint(),
            admin: endpoint(),
        }
    }

    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.arguments.extend([name.to_owned(), value.to_string()]);
        self
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// An edge asks this verdict, too.
    pub fn asks(self, verdict: &Part) -> Self {
        self.flag("--verdict", format!("http://{}", verdict.listen))
    }

    /// Caps the address space with prlimit, in bytes beside those of the program itself: what `ulimit -v` does.
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// This file is its `/etc/hosts`.
    pub fn hosts(mut self, file: &Path) -> Self {
        self.hosts = Some(file.to_owned());
        self
    }

    /// Standard output goes to a file, as in production, instead of to [`Part::lines`].
    pub fn log_to(mut self, file: &Path) -> Self {
        self.log = Some(file.to_owned());
        self
    }

    /// What it writes also goes to a list that several share.
    pub(crate) fn sharing(mut self, lines: &Lines) -> Self {
        self.shared = Some(lines.clone());
        self
    }

    pub fn endpoints(mut self, listen: SocketAddr, admin: SocketAddr) -> Self {
        (self.listen, self.admin) = (listen, admin);
        self
    }

    /// The same on fresh endpoints.
    pub fn elsewhere(self) -> Self {
        self.endpoints(endpoint(), endpoint())
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Part {
        let part = self.launch();
        part.wait_ready();
        part
    }

    /// As [`PartBuilder::start`], without the wait.
    #[track_caller]
    pub fn launch(self) -> Part {
        Part { process: self.process(), listen: self.listen, admin: self.admin, start: self }
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.arguments.iter().any(|argument| argument == flag)
    }

    #[track_caller]
    fn process(&self) -> Process {
        let binary = Gateway::binary();
        let mut command = match (self.address_space, &self.hosts) {
            (Some(bytes), _) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--as={}", bytes + loaded_size(binary))).arg(binary);
                command
            }
            (None, Some(hosts)) => {
                let mut command = Command::new("unshare");
                let script = r#"mount --bind "$1" /etc/hosts; shift; exec "$@""#;
                command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]);
                command.arg(hosts).arg(binary);
                command
            }
            (None, None) => Command::new(binary),
        };
        clean(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg(self.subcommand);
        let listen = match self.subcommand {
            "operator" => None,
            "verdict" => Some("--grpc-listen"),
            _ => Some("--smtp-listen"),
        };
        if let Some(listen) = listen {
            command.args([listen, &self.listen.to_string()]);
        }
        command.args(["--admin-listen", &self.admin.to_string()]).args(&self.arguments);
        if listen.is_some() && !self.has("--drain-delay") {
            // A test stops it when it is done; nothing balances load in front of it.
            command.args(["--drain-delay", "0s"]);
        }
        Process::start_with(&mut command, self.log.as_deref(), self.shared.as_ref())
    }
}

/// What a program's own code and data take, twice as large in a debug build as in a release: its loadable segments (elf(5):
/// `Elf64_Ehdr`, `Elf64_Phdr`).
#[track_caller]
fn loaded_size(binary: &Path) -> u64 {
    let mut start = vec![0; 64 << 10];
    let length =
        std::fs::File::open(binary).and_then(|mut file| std::io::Read::read(&mut file, &mut start)).unwrap();
    start.truncate(length);
    let number = |at: usize, octets: usize| {
        let mut value = [0; 8];
        value[..octets].copy_from_slice(&start[at..at + octets]);
        u64::from_le_bytes(value)
    };
    let place = |at: u64| usize::try_from(at).unwrap();
    let (headers, entry, count) = (place(number(32, 8)), place(number(54, 2)), place(number(56, 2)));
    let segments = (0..count).map(|index| headers + index * entry);
    const PT_LOAD: u64 = 1;
    segments.filter(|at| number(*at, 4) == PT_LOAD).map(|at| number(at + 40, 8)).sum()
}
