//! `torwart check`: what `torwart run` would say of these files.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use torwart_policy::load::{Loaded, compile_files};
use torwart_verdict::dns::NameServers;
use torwart_verdict::{Clock, SystemClock};

use crate::config::CheckConfig;
use crate::policy_files;

/// Every mistake on standard output, one line each, then the warnings, then a summary. Fails if there is a mistake.
pub(crate) fn check(config: &CheckConfig) -> ExitCode {
    let files = policy_files::read(&config.policy);
    // Where the gateway will listen is not known here.
    let listeners: &[SocketAddr] = &[];
    let loaded = compile_files(&files, None, listeners, SystemClock.now());
    // Whoever closes the pipe doesn't want to read on; the outcome is in the exit status.
    let _ = print(&loaded, &resolver_warnings(&loaded, &config.dns_servers), files.len());
    if loaded.mistakes().next().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lists that the gateway would ask in vain. What the policy itself says of servers is nothing, so this stands beside it.
fn resolver_warnings(loaded: &Loaded, given: &[SocketAddr]) -> Vec<String> {
    let gateway = loaded.compilation.policy.as_ref().map(|policy| &policy.gateway);
    if gateway.is_none_or(|gateway| gateway.dns_lists.is_empty()) {
        return Vec::new();
    }
    let place = if given.is_empty() { "/etc/resolv.conf" } else { "--dns-server" };
    let servers = NameServers::choose(given);
    let public = servers.iter().flat_map(NameServers::public);
    public.map(|server| format!("{place}: {server}")).collect()
}

fn print(loaded: &Loaded, resolvers: &[String], files: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for mistake in loaded.mistakes() {
        writeln!(out, "{mistake}")?;
    }
    for warning in loaded.warnings() {
        writeln!(out, "warning: {warning}")?;
    }
    for warning in resolvers {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "{}", summary(loaded, resolvers.len(), files))
}

fn summary(loaded: &Loaded, resolvers: usize, files: usize) -> String {
    let objects = loaded.compilation.outcomes.len();
    let domains = loaded.compilation.policy.as_ref().map_or(0, |policy| policy.domains.len());
    format!(
        "{}, {}, {}: {}, {}",
        counted(files, "file"),
        counted(objects, "object"),
        counted(domains, "mail domain"),
        counted(loaded.mistakes().count(), "mistake"),
        counted(loaded.warnings().count() + resolvers, "warning"),
    )
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
