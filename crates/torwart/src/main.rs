//! The binary: arguments, wiring, admin port, telemetry, shutdown.
//!
//! ```text
//!   cli -> config -> run: signals, log, traces
//!                     |-- run (and demo): gateway ---> edge_half, verdict_half
//!                     |-- edge:           apart -----> edge_half, gRPC client
//!                     |-- verdict:        apart -----> verdict_half, gRPC server
//!                     '-- operator:       operator_process
//! ```

mod admin;
mod apart;
mod check;
mod cli;
mod config;
mod demo;
mod edge_half;
mod explain;
mod gateway;
mod hostname;
mod open_files;
mod operator_process;
mod output;
mod own_addresses;
mod policy_cluster;
mod policy_files;
mod policy_load;
mod policy_state;
mod policy_watch;
mod probe;
mod process;
mod run;
mod secrets;
mod telemetry;
mod tls_watch;
mod verdict_half;

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::Command;
use crate::config::Mistake;

/// Many small, short-lived buffers on many threads are what it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let parsed = match cli::parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(help) => {
            let shown = help.print().is_ok();
            return if shown { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    let unknown = parsed.mistakes;
    match parsed.cli.map(|cli| cli.command) {
        None => refuse("help", unknown, Vec::new()),
        Some(Command::Run(arguments)) => match config::read_run(&arguments) {
            Ok(config) if unknown.is_empty() => run::run(config),
            Ok(_) => refuse("help run", unknown, Vec::new()),
            Err(mistakes) => refuse("help run", unknown, mistakes),
        },
        Some(Command::Edge(arguments)) => match config::read_edge(&arguments) {
            Ok(config) if unknown.is_empty() => run::edge(config),
            Ok(_) => refuse("help edge", unknown, Vec::new()),
            Err(mistakes) => refuse("help edge", unknown, mistakes),
        },
        Some(Command::Verdict(arguments)) => match config::read_verdict(&arguments) {
            Ok(config) if unknown.is_empty() => run::verdict(config),
            Ok(_) => refuse("help verdict", unknown, Vec::new()),
            Err(mistakes) => refuse("help verdict", unknown, mistakes),
        },
        Some(Command::Operator(arguments)) => match config::read_operator(&arguments) {
            Ok(config) if unknown.is_empty() => run::operator(config),
            Ok(_) => refuse("help operator", unknown, Vec::new()),
            Err(mistakes) => refuse("help operator", unknown, mistakes),
        },
        Some(Command::Check(arguments)) => match config::read_check(&arguments) {
            Ok(config) if unknown.is_empty() => check::check(&config),
            Ok(_) => refuse("help check", unknown, Vec::new()),
            Err(mistakes) => refuse("help check", unknown, mistakes),
        },
        Some(Command::Explain(arguments)) => match config::read_explain(&arguments) {
            Ok(config) if unknown.is_empty() => block_on(explain::run(config)),
            Ok(_) => refuse("help explain", unknown, Vec::new()),
            Err(mistakes) => refuse("help explain", unknown, mistakes),
        },
        Some(Command::Crd) if unknown.is_empty() => print_crds(),
        Some(Command::Crd) => refuse("help crd", unknown, Vec::new()),
        Some(Command::Secrets(command)) => match config::read_secrets(&command) {
            Ok(config) if unknown.is_empty() => block_on(secrets::run(config)),
            Ok(_) => refuse("help secrets", unknown, Vec::new()),
            Err(mistakes) => refuse("help secrets", unknown, mistakes),
        },
        Some(Command::Probe(arguments)) if unknown.is_empty() => block_on(probe::probe(arguments.smtp)),
        Some(Command::Probe(_)) => refuse("help probe", unknown, Vec::new()),
        Some(Command::Demo) if unknown.is_empty() => block_on(demo::run()),
        Some(Command::Demo) => refuse("help demo", unknown, Vec::new()),
    }
}

fn print_crds() -> ExitCode {
    let printed = torwart_operator::crd::yaml()
        .and_then(|text| io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("torwart: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Every mistake on a line of its own, on standard error.
fn refuse(help: &str, unknown: Vec<String>, mistakes: Vec<Mistake>) -> ExitCode {
    let lines: Vec<String> = unknown.into_iter().chain(mistakes.iter().map(Mistake::to_string)).collect();
    let plural = if lines.len() == 1 { "" } else { "s" };
    complain(&format!("torwart: {} mistake{plural} in the command line:", lines.len()));
    for line in &lines {
        complain(&format!("  {line}"));
    }
    complain(&format!("See: torwart {help}"));
    ExitCode::from(EXIT_USAGE)
}

/// A line on standard error, if that can be written; the exit status says the same.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// How long the end waits for threads that a disk or a file holds up. All that must be written was by then.
const THREADS_LIMIT: Duration = Duration::from_secs(3);

/// Runs `work` on all cores.
fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    // A second provider in the build would make rustls panic where it has to choose; so it is told. It fails only
    // if one was installed before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            runtime.shutdown_timeout(THREADS_LIMIT);
            code
        }
        Err(error) => {
            complain(&format!("torwart: the runtime can't be started: {error}"));
            ExitCode::FAILURE
        }
    }
}
