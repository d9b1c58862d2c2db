//! `torwart explain`: what a mail would hear, and why.
//!
//! ```text
//!   policy files -> Loader --> Engine <- a store that knows nobody, a clock set by hand
//!                                 |
//!        verdict::explain: the connection, its recipients, and after the wait again
//!                                 |
//!        edge::foretell_*: what a client hears of these answers
//!                                 |
//!                           text | json
//! ```

mod json;
mod message;
mod report;
mod text;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use prometheus::Registry;
use torwart_core::{Envelope, Id, Peer, RecipientsQuestion, TlsFacts};
use torwart_verdict::engine::DEFAULT_STORE_TIMEOUT;
use torwart_verdict::store::{DEFAULT_MAX_RECORDS, MemoryStore};
use torwart_verdict::{Clock, Engine, ManualClock, MessageLimits, Options, SystemClock};

use self::report::Report;
use crate::config::ExplainConfig;
use crate::policy_load::{Compiled, Loader};
use crate::policy_state::PolicyState;
use crate::{complain, policy_files};

/// Succeeds whatever the verdict is, unless there is a mistake in the policy.
pub(crate) async fn run(config: ExplainConfig) -> ExitCode {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    if let Some(path) = &config.policy_state
        && PolicyState::at(path.clone()).read().is_none()
    {
        return fail(&format!("--policy-state: {} is not what a gateway keeps", path.display()));
    }
    let state = config.policy_state.clone().map(PolicyState::at);
    let mut loader = Loader::new(Vec::new(), clock.clone(), state);
    let compiled = match loader.load(policy_files::read(&config.policy)) {
        Ok(compiled) => compiled,
        Err(mistakes) => {
            tell_mistakes(&mistakes, config.json);
            return ExitCode::FAILURE;
        }
    };
    let mistakes = tell_mistakes(&compiled.mistakes, config.json);
    match report(&config, clock, compiled).await {
        Ok(report) => {
            // Whoever closes the pipe doesn't want to read on.
            let _ = print(&report, config.json);
            if mistakes == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

async fn report(
    config: &ExplainConfig,
    clock: Arc<ManualClock>,
    compiled: Compiled,
) -> Result<Report, String> {
    let messages = MessageLimits::default();
    let message = config.message.as_deref().map(|path| message::read(path, messages.inspect)).transpose()?;
    let size = message.as_ref().map(|message| message.size);
    let question = question(config, size);
    let asks_dns = !compiled.policy.gateway.dns_lists.is_empty();
    let (checks, no_servers) = if asks_dns { config.checks.clone().options() } else { Default::default() };
    let options = Options {
        checks,
        store: Arc::new(MemoryStore::new(DEFAULT_MAX_RECORDS, clock.clone())),
        clock: clock.clone(),
        key_files: Vec::new(),
        store_timeout: DEFAULT_STORE_TIMEOUT,
        own_addresses: Vec::new(),
        messages,
    };
    let engine = Engine::start(options, &Registry::new()).await.map_err(|error| error.to_string())?;
    engine.set_policy(compiled.policy);
    engine.lists().probe_all().await;
    let explanation = torwart_verdict::explain::explain(&engine, &clock, &question, message)
        .await
        .map_err(|error| error.to_string())?;
    let mut report = Report::new(&question, explanation);
    report.notes = notes(config, size.filter(|_| report.message.is_none()), asks_dns);
    report.notes.extend(no_servers.map(|error| format!("checks by DNS come to no result: {error}")));
    Ok(report)
}

fn question(config: &ExplainConfig, size: Option<u64>) -> RecipientsQuestion {
    let tls = config.tls.then(|| TlsFacts { version: "TLS".into(), cipher: "any".into() });
    let peer = Peer {
        // Nothing of it is kept, and no reply is sent.
        session: Id::from_u128(0),
        address: SocketAddr::new(config.client, 0),
        helo: Some(config.helo.as_str().into()),
        tls,
        early_talker: false,
    };
    let envelope =
        Envelope { sender: config.from.clone(), declared_size: size, eight_bit: true, smtputf8: false };
    RecipientsQuestion {
        peer: Arc::new(peer),
        transaction: Id::from_u128(0),
        envelope: Arc::new(envelope),
        recipients: config.to.clone(),
        accepted_before: 0,
    }
}

/// What was given and counts for nothing.
fn notes(config: &ExplainConfig, size: Option<u64>, asks_dns: bool) -> Vec<String> {
    let message = size.map(|size| {
        format!("--message: this policy has no message checks yet; only the size counts ({size} bytes, as SIZE= says it)")
    });
    let rdns =
        config.rdns.then(|| "--rdns: without effect, there are no checks of reverse DNS yet".to_owned());
    let idle = !asks_dns && !config.checks.dns_servers.is_empty();
    let dns = idle.then(|| "--dns-server: without effect, this policy has no checks by DNS".to_owned());
    [message, rdns, dns].into_iter().flatten().collect()
}

/// As `check` tells them; with `--json` beside the JSON.
fn tell_mistakes(mistakes: &[String], json: bool) -> usize {
    for mistake in mistakes {
        if json {
            complain(mistake);
        } else {
            let _ = writeln!(io::stdout(), "{mistake}");
        }
    }
    mistakes.len()
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json { json::write(report, &mut out) } else { text::write(report, &mut out) }
}

fn fail(error: &str) -> ExitCode {
    complain(&format!("torwart: {error}"));
    ExitCode::FAILURE
}
