//! `torwart run`, `edge`, `verdict` and `operator`: serving until a signal ends it.
//!
//! | signal | does |
//! |---|---|
//! | SIGTERM, SIGINT | ends gracefully: see the edge's drain and the verdict's; a second one ends at once |
//! | SIGHUP | reads policy and certificates again (both are also watched) |

use std::process::ExitCode;
use std::sync::Arc;

use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use torwart_edge::MailLogOptions;
use torwart_verdict::StoreSpec;

use crate::apart::{EdgeProcess, VerdictProcess};
use crate::config::{EdgeCommandConfig, LogConfig, OperatorConfig, RunConfig, VerdictCommandConfig};
use crate::edge_half::Telling;
use crate::gateway::{Gateway, Options};
use crate::operator_process::OperatorProcess;
use crate::output::Output;
use crate::process::{self, Service, StartError};
use crate::telemetry::{self, Traces};
use crate::verdict_half::{PolicyFiles, PolicySource};
use crate::{block_on, complain, open_files};

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

enum Order {
    Stop,
    Reload,
}

/// How serving ended.
enum End {
    /// In order, or it never began.
    Over(ExitCode),
    /// A second signal: nobody waits for anything any more.
    AtOnce,
}

pub(crate) fn run(mut config: RunConfig) -> ExitCode {
    let log = config.log.clone();
    launch("run", &log, async |registry| {
        if config.store.spec == StoreSpec::Memory {
            tracing::warn!(
                "--store memory: a restart forgets every sender; use --store redb:PATH to keep them"
            );
        }
        warn_of_forgetting(&config.policy, &config.store.spec);
        config.edge.max_connections = open_files::make_room(config.edge.max_connections);
        let options = Options {
            policy: PolicySource::Files(config.policy),
            store: config.store,
            messages: config.messages,
            checks: config.checks,
            edge: config.edge,
            telling: telling(&config.log),
        };
        let gateway = Gateway::start(options, registry, std::io::stdout()).await?;
        let smtp: Vec<String> = gateway.smtp_addresses().iter().map(ToString::to_string).collect();
        tracing::info!(smtp = smtp.join(","), admin = %gateway.admin_address(), "ready");
        Ok(gateway)
    })
}

pub(crate) fn edge(mut config: EdgeCommandConfig) -> ExitCode {
    let log = config.log.clone();
    launch("edge", &log, async |registry| {
        config.edge.max_connections = open_files::make_room(config.edge.max_connections);
        EdgeProcess::start(config.ask, config.edge, telling(&config.log), registry, std::io::stdout()).await
    })
}

pub(crate) fn verdict(config: VerdictCommandConfig) -> ExitCode {
    let log = config.log.clone();
    launch("verdict", &log, async |registry| {
        open_files::raise();
        match &config.policy {
            PolicySource::Files(files) => warn_of_forgetting(files, &config.store.spec),
            PolicySource::Cluster(cluster) if cluster.state.is_none() => tracing::warn!(
                "without --policy-state FILE a restart without the API server has no policy, and defers all mail with 451"
            ),
            PolicySource::Cluster(_) | PolicySource::Text { .. } => {}
        }
        VerdictProcess::start(
            config.policy,
            config.store,
            config.messages,
            config.checks,
            config.service,
            registry,
        )
        .await
    })
}

pub(crate) fn operator(config: OperatorConfig) -> ExitCode {
    let log = config.log.clone();
    launch("operator", &log, async |registry| OperatorProcess::start(config, registry).await)
}

fn warn_of_forgetting(policy: &PolicyFiles, store: &StoreSpec) {
    if policy.state.is_none() && !matches!(store, StoreSpec::Redb(_)) {
        tracing::warn!(
            "without --policy-state FILE a restart forgets the mail domains that have just left the policy, whose mail \
             is refused then, and the last good form of what is broken"
        );
    }
}

fn telling(log: &LogConfig) -> Telling {
    let mail_log = MailLogOptions { addresses: log.addresses, format: log.format, pod: pod() };
    Telling { mail_log, trace_sample_ratio: log.trace.as_ref().map(|trace| trace.sample_ratio) }
}

/// Kubernetes gives a pod its name as HOSTNAME.
fn pod() -> Option<Arc<str>> {
    std::env::var("HOSTNAME").ok().map(Arc::from)
}

/// Starts log and traces, serves what `start` starts until a signal ends it, and writes the last of both.
fn launch<S: Service>(
    role: &'static str,
    log: &LogConfig,
    start: impl AsyncFnOnce(Registry) -> Result<S, StartError>,
) -> ExitCode {
    let output = match Output::stdout() {
        Ok(output) => output,
        Err(error) => {
            complain(&format!("torwart: standard output can't be written: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = block_on(async {
        let pod = pod();
        let traces = log.trace.as_ref().map(|trace| Traces::start(&trace.endpoint, role, pod.as_deref()));
        let (traces, failure) = match traces.transpose() {
            Ok(traces) => (traces, None),
            Err(reason) => (None, Some(reason)),
        };
        telemetry::start(output.clone(), log.format, log.level, traces.as_ref());
        if let Some(reason) = failure {
            return fail(&[reason]);
        }
        let started = async {
            let registry = process::registry()?;
            if let Some(traces) = &traces {
                traces.register(&registry)?;
            }
            start(registry).await
        };
        match Box::pin(serve(started)).await {
            End::Over(code) => {
                if let Some(traces) = traces {
                    traces.finish().await;
                }
                code
            }
            End::AtOnce => ExitCode::FAILURE,
        }
    });
    output.flush();
    code
}

async fn serve<S: Service>(start: impl Future<Output = Result<S, StartError>>) -> End {
    // Before anything else, so that no signal ends the process halfway.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return End::Over(fail(&[format!("signals can't be listened to: {error}")])),
    };
    let service = tokio::select! {
        started = start => match started {
            Ok(service) => service,
            Err(error) => return End::Over(fail(&error.0)),
        },
        () = signals.stop() => return End::Over(ExitCode::SUCCESS),
    };
    let mut stop = loop {
        match signals.next().await {
            Order::Reload => {
                tracing::info!("told to read policy and certificates again");
                service.reload();
            }
            Order::Stop => break Box::pin(service.stop()),
        }
    };
    tracing::info!("stopping; a second signal ends at once");
    tokio::select! {
        () = &mut stop => {
            tracing::info!("stopped");
            End::Over(ExitCode::SUCCESS)
        }
        () = signals.stop() => {
            tracing::warn!("stopped at once by a second signal; what was under way was cut off");
            End::AtOnce
        }
    }
}

/// The reasons go to standard error, for whoever started it by hand; the log says that there are some.
fn fail(reasons: &[String]) -> ExitCode {
    for reason in reasons {
        complain(&format!("torwart: {reason}"));
    }
    let first = reasons.first().map(String::as_str).unwrap_or_default();
    tracing::error!(reasons = reasons.len(), first, "can't start; every reason is on standard error");
    ExitCode::FAILURE
}

// === impl Signals ===

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hang_up.recv() => Order::Reload,
        }
    }

    /// Until told to stop; what else comes is ignored.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Order::Stop) {}
    }
}
