//! `torwart check`: what `torwart run` would say of these files.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use torwart_policy::load::{Loaded, compile_files};
use torwart_verdict::{Clock, SystemClock};

use crate::policy_files;

/// Every mistake on standard output, one line each, then the warnings, then a summary. Fails if there is a mistake.
pub(crate) fn check(paths: &[PathBuf]) -> ExitCode {
    let files = policy_files::read(paths);
    // Where the gateway will listen is not known here.
    let listeners: &[SocketAddr] = &[];
    let loaded = compile_files(&files, None, listeners, SystemClock.now());
    // Whoever closes the pipe doesn't want to read on; the outcome is in the exit status.
    let _ = print(&loaded, files.len());
    if loaded.mistakes().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(loaded: &Loaded, files: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for mistake in loaded.mistakes() {
        writeln!(out, "{mistake}")?;
    }
    for warning in loaded.warnings() {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "{}", summary(loaded, files))
}

fn summary(loaded: &Loaded, files: usize) -> String {
    let objects = loaded.compilation.outcomes.len();
    let domains = loaded.compilation.policy.as_ref().map_or(0, |policy| policy.domains.len());
    format!(
        "{}, {}, {}: {}, {}",
        counted(files, "file"),
        counted(objects, "object"),
        counted(domains, "mail domain"),
        counted(loaded.mistakes().count(), "mistake"),
        counted(loaded.warnings().count(), "warning"),
    )
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
