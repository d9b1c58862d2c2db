//! From the command line to what the commands need: every value parsed, every mistake found, none of them twice.

mod ask;
mod checks;
mod edge;
mod explain;
mod messages;
mod operator;
mod reader;
mod secrets;
mod service;
mod spool;
mod store;
mod trace;
mod values;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use torwart_edge::{LogAddresses, LogFormat};
use torwart_operator::follow::Source;
use torwart_verdict::MessageLimits;
use tracing::Level;

pub(crate) use self::ask::AskConfig;
pub(crate) use self::checks::{CheckConfig, ChecksConfig};
pub(crate) use self::edge::{DrainConfig, EdgeConfig};
pub(crate) use self::explain::ExplainConfig;
pub(crate) use self::operator::OperatorConfig;
use self::reader::Reader;
pub(crate) use self::secrets::SecretsConfig;
pub(crate) use self::service::ServiceConfig;
pub(crate) use self::store::StoreConfig;
use self::store::usable_path;
pub(crate) use self::trace::{OtlpEndpoint, TraceConfig};
pub(crate) use self::values::is_host_name;
use crate::cli::{
    CheckArgs, EdgeCommandArgs, ExplainArgs, LogArgs, OperatorArgs, PolicyArgs, RunArgs, SecretsCommand,
    TraceArgs, VerdictCommandArgs,
};
use crate::policy_cluster::ClusterPolicy;
use crate::verdict_half::{PolicyFiles, PolicySource};

/// What is wrong with one flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// With its dashes, as in `--store`.
    pub(crate) flag: &'static str,
    pub(crate) text: String,
}

/// Everything `torwart run` was told, checked.
#[derive(Debug)]
pub(crate) struct RunConfig {
    pub(crate) policy: PolicyFiles,
    pub(crate) store: StoreConfig,
    pub(crate) messages: MessageLimits,
    pub(crate) checks: ChecksConfig,
    pub(crate) edge: EdgeConfig,
    pub(crate) log: LogConfig,
}

/// Everything `torwart edge` was told, checked.
#[derive(Debug)]
pub(crate) struct EdgeCommandConfig {
    pub(crate) ask: AskConfig,
    pub(crate) edge: EdgeConfig,
    pub(crate) log: LogConfig,
}

/// Everything `torwart verdict` was told, checked.
#[derive(Debug)]
pub(crate) struct VerdictCommandConfig {
    pub(crate) policy: PolicySource,
    pub(crate) store: StoreConfig,
    pub(crate) messages: MessageLimits,
    pub(crate) checks: ChecksConfig,
    pub(crate) service: ServiceConfig,
    pub(crate) log: LogConfig,
}

/// What the process tells, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogConfig {
    pub(crate) format: LogFormat,
    pub(crate) level: Level,
    pub(crate) addresses: LogAddresses,
    /// `None`: no trace is made.
    pub(crate) trace: Option<TraceConfig>,
}

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_run(arguments: &RunArgs) -> Result<RunConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = RunConfig {
        policy: reader.policy_files(&arguments.policy),
        store: reader.store(&arguments.store, &arguments.store_flags),
        messages: reader.messages(&arguments.messages),
        checks: reader.checks(&arguments.dns),
        edge: reader.edge(&arguments.edge, &arguments.admin, &arguments.drain),
        log: reader.log(&arguments.log, &arguments.trace),
    };
    reader.finish(config)
}

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_edge(arguments: &EdgeCommandArgs) -> Result<EdgeCommandConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = EdgeCommandConfig {
        ask: reader.ask(&arguments.ask),
        edge: reader.edge(&arguments.edge, &arguments.admin, &arguments.drain),
        log: reader.log(&arguments.log, &arguments.trace),
    };
    reader.finish(config)
}

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_verdict(arguments: &VerdictCommandArgs) -> Result<VerdictCommandConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    if arguments.store.is_empty() {
        reader.mistake(
            "--store",
            "is needed: a redis URL for several processes, memory or redb:PATH for a single one",
        );
    }
    let config = VerdictCommandConfig {
        policy: reader.policy_source(&arguments.policy),
        store: reader.store(&arguments.store, &arguments.store_flags),
        messages: reader.messages(&arguments.messages),
        checks: reader.checks(&arguments.dns),
        service: reader.service(&arguments.grpc, &arguments.drain),
        log: reader.log(&arguments.log, &arguments.trace),
    };
    reader.finish(config)
}

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_operator(arguments: &OperatorArgs) -> Result<OperatorConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = reader.operator(arguments);
    reader.finish(config)
}

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_secrets(command: &SecretsCommand) -> Result<SecretsConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = reader.secrets(command);
    reader.finish(config)
}

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_explain(arguments: &ExplainArgs) -> Result<ExplainConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = reader.explain(arguments);
    reader.finish(config)
}

/// Checks everything; `Err` holds every mistake.
pub(crate) fn read_check(arguments: &CheckArgs) -> Result<CheckConfig, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = reader.check(arguments);
    reader.finish(config)
}

// === impl Mistake ===

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.flag, self.text)
    }
}

// === impl Reader ===

impl Reader {
    fn policy_files(&mut self, arguments: &PolicyArgs) -> PolicyFiles {
        let state = self.policy_state(arguments);
        PolicyFiles { paths: self.policy(&arguments.policy), state }
    }

    /// Files, or one policy of a cluster.
    fn policy_source(&mut self, arguments: &PolicyArgs) -> PolicySource {
        let [only] = arguments.policy.as_slice() else {
            return PolicySource::Files(self.policy_files(arguments));
        };
        let Some(name) = only.to_str().and_then(|text| text.strip_prefix("kube:")) else {
            return PolicySource::Files(self.policy_files(arguments));
        };
        let (namespace, gateway) = name.split_once('/').unwrap_or_default();
        if operator::label(namespace).is_err() || operator::gateway_name(gateway).is_err() {
            let text = "is not kube:NAMESPACE/GATEWAY, as in kube:torwart-system/default";
            self.mistake("--policy", format!("{} {text}", only.display()));
        }
        let state = self.policy_state(arguments);
        let source = Source { namespace: namespace.to_owned(), gateway: gateway.to_owned() };
        PolicySource::Cluster(ClusterPolicy { source, state })
    }

    fn policy_state(&mut self, arguments: &PolicyArgs) -> Option<PathBuf> {
        let state = self.once("--policy-state", &arguments.policy_state).cloned();
        if let Some(Err(text)) = state.as_deref().map(usable_path) {
            self.mistake("--policy-state", text);
        }
        state
    }

    fn policy(&mut self, paths: &[PathBuf]) -> Vec<PathBuf> {
        if paths.is_empty() {
            self.mistake("--policy", "is needed: a file, or a directory of *.yaml and *.yml files");
        }
        for path in paths {
            if path.as_os_str().as_encoded_bytes().starts_with(b"kube:") {
                let text = "is for `torwart verdict`, alone; name files or directories";
                self.mistake("--policy", format!("{} {text}", path.display()));
                continue;
            }
            let readable = if path.is_dir() { path.read_dir().map(drop) } else { File::open(path).map(drop) };
            if let Err(error) = readable {
                self.mistake("--policy", format!("{} can't be read: {error}", path.display()));
            }
        }
        paths.to_vec()
    }

    fn log(&mut self, arguments: &LogArgs, trace: &TraceArgs) -> LogConfig {
        let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
        let levels = [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ];
        let addresses =
            [("full", LogAddresses::Full), ("domain", LogAddresses::Domain), ("hash", LogAddresses::Hash)];
        LogConfig {
            format: self.one_of("--log-format", &arguments.log_format, &formats, LogFormat::Json),
            level: self.one_of("--log-level", &arguments.log_level, &levels, Level::INFO),
            addresses: self.one_of(
                "--log-addresses",
                &arguments.log_addresses,
                &addresses,
                LogAddresses::Full,
            ),
            trace: self.trace(trace),
        }
    }
}
