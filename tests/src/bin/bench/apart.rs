//! The rows with edge, verdict and Redis as processes of their own.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use torwart_tests::{Fleet, Gateway, Output, Part, PolicyFile, RedisServer};

use super::{
    CONNECTIONS, Options, Target, bare_server, beside, entrant, gateway, greylisting_postfix, measure,
    median, print_row,
};

const GREYLISTING: &str = "{mode: Always, delay: 1h}";
/// Clock ticks a second in /proc: the same on every Linux that is in use.
const TICKS: f64 = 100.0;

/// One edge, one verdict: what each costs is seen best where there is one of each.
struct Apart {
    fleet: Fleet,
    redis: RedisServer,
    _log: TempDir,
}

/// Processor time of each part since its start, in seconds, and sessions so far.
struct Spent {
    parts: [(&'static str, f64); 3],
    sessions: f64,
}

// === the rows ===

pub(super) fn greylist(options: &Options) -> Result<()> {
    let sink = bare_server("250")?;
    let mut apart = Apart::start(sink.1)?;
    let (_run, in_process, _log) = gateway(sink.1, GREYLISTING, Gateway::builder())?;
    let (postfix, _postgrey) = greylisting_postfix();
    let mut entrants = [
        entrant("Torwart, edge + verdict + Redis", apart.endpoint()?),
        entrant("`torwart run`, memory store", in_process),
        entrant("Postfix + postgrey", postfix.endpoint),
    ];
    let before = apart.spent()?;
    measure(options, &mut entrants, &["greylist"], CONNECTIONS)?;
    let after = apart.spent()?;
    let targets = [Target { rival: "Postfix + postgrey", share: 2.5 }];
    print_row("greylisted sessions/s, apart", &entrants, &targets);
    let sessions = after.sessions - before.sessions;
    ensure!(sessions > 0.0, "the edge counted no session");
    for ((name, before), (_, after)) in before.parts.iter().zip(&after.parts) {
        println!(
            "| | processor time a session: {name}, µs | {:.0} | | | |",
            (after - before) * 1e6 / sessions
        );
    }
    Ok(())
}

/// One session at a time: what is waited for, not what fits in.
pub(super) fn ask(options: &Options) -> Result<()> {
    let sink = bare_server("250")?;
    let apart = Apart::start(sink.1)?;
    let (_run, in_process, _log) = gateway(sink.1, GREYLISTING, Gateway::builder())?;
    let mut entrants =
        [entrant("Torwart, edge + verdict + Redis", apart.endpoint()?), entrant("`torwart run`", in_process)];
    measure(options, &mut entrants, &["greylist"], 1)?;
    let [ours, in_process] = entrants.each_ref().map(|entrant| 1e6 / median(&entrant.results));
    println!("| one greylisted session, alone, µs | `torwart run`, memory store | {in_process:.0} | | | |");
    println!("| | edge + verdict + Redis | {ours:.0} | | | |");
    println!("| | what the ask costs | {:.0} | | | |", ours - in_process);
    Ok(())
}

/// Decisions alone, against what Redis itself does with the same script: one connection, as many in flight.
pub(super) fn decisions() -> Result<()> {
    let redis = RedisServer::start();
    let output = Output::of(Command::new(beside("examples")?.join("redis_decisions")).arg(redis.url()));
    ensure!(output.code == 0, "{}", output.text);
    let figure = |label: &str| -> Result<f64> {
        let line = output.text.lines().find_map(|line| line.strip_prefix(label));
        let number = line.and_then(|line| line.split_whitespace().next()).context(output.text.clone())?;
        Ok(number.parse()?)
    };
    let (store, benchmark) = (figure("torwart:")?, figure("redis-benchmark:")?);
    let (ratio, verdict) = (store / benchmark, if store >= 0.7 * benchmark { "met" } else { "MISSED" });
    println!("| greylist decisions/s against Redis | Torwart's store | {store:.0} | | | |");
    println!("| | redis-benchmark, same script | {benchmark:.0} | | {ratio:.2} of it | 0.7: {verdict} |");
    Ok(())
}

// === impl Apart ===

impl Apart {
    fn start(upstream: SocketAddr) -> Result<Self> {
        let log = tempfile::tempdir()?;
        let redis = RedisServer::start();
        let edge =
            Part::edge().flag("--max-connections-per-network", 20_000).log_to(&log.path().join("edge.log"));
        let policy = PolicyFile::to(upstream).greylisting(GREYLISTING);
        let fleet = Fleet::builder(&redis.url()).edge(edge).verdicts(1).start(&policy.text());
        Ok(Self { fleet, redis, _log: log })
    }

    fn endpoint(&self) -> Result<SocketAddr> {
        Ok(self.fleet.edges.first().context("no edge")?.listen)
    }

    fn spent(&mut self) -> Result<Spent> {
        let edge = self.fleet.edges.first_mut().context("no edge")?;
        let sessions = edge.metrics().sum("torwart_smtp_sessions_total", &[]);
        let verdict = self.fleet.verdicts.first_mut().context("no verdict")?;
        Ok(Spent {
            parts: [
                ("edge", processor_time(edge.process().id())?),
                ("verdict", processor_time(verdict.process().id())?),
                ("Redis", processor_time(self.redis.process().id())?),
            ],
            sessions,
        })
    }
}

/// User and system time of a process, in seconds (proc(5), fields 14 and 15 of stat).
fn processor_time(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in brackets may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("stat")?;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Ok(ticks.iter().sum::<f64>() / TICKS)
}
