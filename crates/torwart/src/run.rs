//! `torwart run`: the gateway until a signal ends it.
//!
//! | signal | does |
//! |---|---|
//! | SIGTERM, SIGINT | ends gracefully: see the edge's drain; a second one ends at once |
//! | SIGHUP | reads policy and certificates again (both are also watched) |

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use torwart_edge::MailLogOptions;
use torwart_verdict::StoreSpec;

use crate::config::RunConfig;
use crate::gateway::{Gateway, Options, PolicySource};
use crate::output::Output;
use crate::{block_on, complain, open_files, telemetry};

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

enum Order {
    Stop,
    Reload,
}

pub(crate) fn run(config: RunConfig) -> ExitCode {
    let output = match Output::stdout() {
        Ok(output) => output,
        Err(error) => {
            complain(&format!("torwart: standard output can't be written: {error}"));
            return ExitCode::FAILURE;
        }
    };
    telemetry::start(output.clone(), config.log.format, config.log.level);
    let code = block_on(serve(config));
    output.flush();
    code
}

async fn serve(mut config: RunConfig) -> ExitCode {
    // Before anything else, so that no signal ends the process halfway.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&[format!("signals can't be listened to: {error}")]),
    };
    if config.store == StoreSpec::Memory {
        tracing::warn!(
            "--store memory: a restart forgets every sender, the mail domains that have just left the policy, and the \
             last good form of what is broken; use --store redb:PATH to keep them"
        );
    }
    config.edge.max_connections = open_files::make_room(config.edge.max_connections);
    let options = Options {
        policy: PolicySource::Files(config.policy),
        store: config.store,
        store_key_files: config.store_key_files,
        store_timeout: config.store_timeout,
        edge: config.edge,
        mail_log: MailLogOptions {
            addresses: config.log.addresses,
            format: config.log.format,
            pod: std::env::var("HOSTNAME").ok().map(Arc::from),
        },
    };
    let gateway = tokio::select! {
        started = Gateway::start(options, std::io::stdout()) => match started {
            Ok(gateway) => gateway,
            Err(error) => return fail(&error.0),
        },
        () = signals.stop() => return ExitCode::SUCCESS,
    };
    let smtp: Vec<String> = gateway.smtp_addresses().iter().map(ToString::to_string).collect();
    tracing::info!(smtp = smtp.join(","), admin = %gateway.admin_address(), "ready");
    let mut stop = loop {
        match signals.next().await {
            Order::Reload => {
                tracing::info!("told to read policy and certificates again");
                gateway.reload();
            }
            Order::Stop => break Box::pin(gateway.stop()),
        }
    };
    tracing::info!("stopping; a second signal ends at once");
    tokio::select! {
        () = &mut stop => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        () = signals.stop() => {
            tracing::warn!("stopped at once by a second signal; open sessions were cut off");
            ExitCode::FAILURE
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
