//! Torwart beside what it wants to beat, in one run on one machine (the targets are in docs/performance.md).
//! Started by `tests/bench/run`.
//!
//!     torwart-bench [--rows greylist,10k,1m,idle,idle-tls,apart,ask,decisions] [--rounds 5] [--seconds 4]
//!
//! The servers of a row all run from its start; each round measures them in turn, in an order that turns as well.

mod apart;

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use torwart_tests::{
    Certificate, Gateway, GatewayBuilder, HaProxy, Output, PolicyFile, Postfix, PostfixRole, Postgrey,
    Process, SendProxy, endpoint, wait_listening,
};

/// Sessions at one time: fewer than the gateway may open to its upstream, enough to keep two cores busy.
const CONNECTIONS: usize = 40;
/// Idle connections to hold, where the limit of open files has room for two descriptors each.
const IDLE: usize = 10_000;
const KIB: f64 = 1024.0;

struct Options {
    rows: Vec<String>,
    rounds: usize,
    seconds: u64,
}

/// One server in a row, and what was measured of it in each round.
struct Entrant {
    name: &'static str,
    endpoint: SocketAddr,
    results: Vec<f64>,
}

/// What ours has to reach: this share of another's median.
struct Target {
    rival: &'static str,
    share: f64,
}

fn main() -> Result<()> {
    let options = Options::read()?;
    println!("{}\n", machine());
    println!("| work | server | median | lowest to highest | Torwart is | target |");
    println!("|---|---|---|---|---|---|");
    for row in &options.rows {
        match row.as_str() {
            "greylist" => greylist(&options)?,
            "10k" => ten_kilobytes(&options)?,
            "1m" => one_megabyte(&options)?,
            "idle" => idle(false)?,
            "idle-tls" => idle(true)?,
            "apart" => apart::greylist(&options)?,
            "ask" => apart::ask(&options)?,
            "decisions" => apart::decisions()?,
            other => bail!("no row is called {other}"),
        }
    }
    Ok(())
}

// === impl Entrant ===

impl Entrant {
    /// The one that the others are compared with.
    fn is_ours(&self) -> bool {
        self.name.starts_with("Torwart")
    }
}

// === impl Options ===

impl Options {
    fn read() -> Result<Self> {
        let rows = ["greylist", "10k", "1m", "idle", "idle-tls", "apart", "ask", "decisions"];
        let rows = rows.map(str::to_owned).to_vec();
        let mut options = Self { rows, rounds: 5, seconds: 4 };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words.next().with_context(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--rows" => options.rows = value.split(',').map(str::to_owned).collect(),
                "--rounds" => options.rounds = value.parse().context("--rounds")?,
                "--seconds" => options.seconds = value.parse().context("--seconds")?,
                _ => bail!("unknown: {flag}"),
            }
        }
        ensure!(options.rounds > 0 && options.seconds > 0, "at least one round of one second");
        Ok(options)
    }
}

// === the rows ===

fn greylist(options: &Options) -> Result<()> {
    let sink = bare_server("250")?;
    let floor = bare_server("450")?;
    let (_gateway, ours, _log) = gateway(sink.1, "{mode: Always, delay: 1h}", Gateway::builder())?;
    let (postfix, _postgrey) = greylisting_postfix();
    let mut entrants = [
        entrant("bare TCP server", floor.1),
        entrant("Torwart", ours),
        entrant("Postfix + postgrey", postfix.endpoint),
    ];
    measure(options, &mut entrants, &["greylist"], CONNECTIONS)?;
    let targets =
        [Target { rival: "bare TCP server", share: 0.5 }, Target { rival: "Postfix + postgrey", share: 5.0 }];
    print_row("greylisted sessions/s", &entrants, &targets);
    Ok(())
}

fn ten_kilobytes(options: &Options) -> Result<()> {
    let sink = bare_server("250")?;
    let (_gateway, ours, _log) = gateway(sink.1, "{mode: Off}", Gateway::builder())?;
    let haproxy = HaProxy::start(sink.1, SendProxy::No);
    let postfix = Postfix::start(&PostfixRole::Measured {
        main: format!("{POSTFIX}smtpd_proxy_filter = {}\n", sink.1),
    });
    let mut entrants = [
        entrant("the sink itself", sink.1),
        entrant("HAProxy, TCP mode", haproxy.endpoint),
        entrant("Torwart", ours),
        entrant("Postfix smtpd_proxy_filter", postfix.endpoint),
    ];
    measure(options, &mut entrants, &["message", "--size", "10240"], CONNECTIONS)?;
    let targets = [
        Target { rival: "HAProxy, TCP mode", share: 1.0 },
        Target { rival: "Postfix smtpd_proxy_filter", share: 4.0 },
    ];
    print_row("10 KB messages/s", &entrants, &targets);
    Ok(())
}

fn one_megabyte(options: &Options) -> Result<()> {
    let sink = bare_server("250")?;
    let (_gateway, ours, _log) = gateway(sink.1, "{mode: Off}", Gateway::builder())?;
    let haproxy = HaProxy::start(sink.1, SendProxy::No);
    let mut entrants = [
        entrant("the sink itself", sink.1),
        entrant("HAProxy, TCP mode", haproxy.endpoint),
        entrant("Torwart", ours),
    ];
    measure(options, &mut entrants, &["message", "--size", "1048576"], CONNECTIONS)?;
    print_row("1 MB messages, MB/s", &entrants, &[Target { rival: "HAProxy, TCP mode", share: 0.6 }]);
    Ok(())
}

/// Resident memory of a connection that has said nothing (or nothing since STARTTLS).
fn idle(tls: bool) -> Result<()> {
    let sink = bare_server("250")?;
    let certificate = Certificate::new(&[PolicyFile::HOSTNAME]);
    let ca = certificate.cert.display().to_string();
    let mut builder = Gateway::builder();
    if tls {
        builder = builder.flag("--tls-cert", &ca).flag("--tls-key", certificate.key.display());
    }
    let (mut gateway, ours, _log) = gateway(sink.1, "{mode: Off}", builder)?;
    let flags = |kind| if tls { vec!["--tls", kind, "--ca", &ca] } else { Vec::new() };
    let held = idle_connections();
    let ours = per_connection(gateway.process(), ours, held, &flags("starttls"))?;
    drop(gateway);
    let certificate = tls.then_some(&certificate);
    let mut haproxy = HaProxy::start_sized(sink.1, SendProxy::No, held + 100, certificate);
    let endpoint = haproxy.endpoint;
    let theirs = per_connection(haproxy.process(), endpoint, held, &flags("implicit"))?;
    let (work, limit) = if tls { ("idle after STARTTLS, KiB each", 24.0) } else { ("idle, KiB each", 4.0) };
    let verdict = if ours <= limit { "met" } else { "MISSED" };
    println!("| {work} | Torwart, {held} held | {ours:.1} | | | at most {limit}: {verdict} |");
    println!("| | HAProxy, TCP mode, {held} held | {theirs:.1} | | | |");
    Ok(())
}

/// [`IDLE`], or what the limit of open files has room for: both servers keep two descriptors for each client.
fn idle_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let hard = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().nth(1));
    let room = hard.and_then(|limit| limit.parse::<usize>().ok()).map(|limit| limit.saturating_sub(1000) / 2);
    room.map_or(IDLE, |room| room.min(IDLE))
}

/// Holds so many connections and returns what each adds, in KiB.
fn per_connection(process: &mut Process, to: SocketAddr, count: usize, flags: &[&str]) -> Result<f64> {
    // A few first, so that what is set up once is not shared out among the many.
    drop(hold(to, 100, flags)?);
    let before = process.resident();
    let _held = hold(to, count, flags)?;
    let after = process.resident();
    Ok((after.saturating_sub(before)) as f64 / KIB / count as f64)
}

// === measuring ===

fn measure(options: &Options, entrants: &mut [Entrant], work: &[&str], connections: usize) -> Result<()> {
    let size = work.iter().position(|word| *word == "--size").and_then(|at| work.get(at + 1));
    let megabytes =
        size.and_then(|size| size.parse::<f64>().ok()).filter(|size| *size >= 1e6).map(|size| size / 1e6);
    let count = entrants.len();
    for round in 0..options.rounds {
        for turn in 0..count {
            let entrant = &mut entrants[(round + turn) % count];
            let mut command = generator(entrant.endpoint, work);
            command.args([
                "--connections",
                &connections.to_string(),
                "--seconds",
                &options.seconds.to_string(),
            ]);
            let output = Output::of(&mut command);
            ensure!(output.code == 0, "{}: {}", entrant.name, output.text);
            let line = output.text.lines().find(|line| line.starts_with('{')).context("no result")?;
            let result: serde_json::Value = serde_json::from_str(line)?;
            let number = |key: &str| result[key].as_f64().unwrap_or(0.0);
            ensure!(number("errors") == 0.0, "{} in round {round}: {}", entrant.name, output.text);
            let rate = number("done") / number("seconds");
            eprintln!("{} {work:?} round {round}: {rate:.0}/s", entrant.name);
            entrant.results.push(rate * megabytes.unwrap_or(1.0));
        }
    }
    Ok(())
}

fn median(results: &[f64]) -> f64 {
    let mut sorted = results.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn print_row(work: &str, entrants: &[Entrant], targets: &[Target]) {
    let ours =
        entrants.iter().find(|entrant| entrant.is_ours()).map_or(0.0, |entrant| median(&entrant.results));
    for (i, entrant) in entrants.iter().enumerate() {
        let work = if i == 0 { work } else { "" };
        let middle = median(&entrant.results);
        let lowest = entrant.results.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = entrant.results.iter().copied().fold(0.0, f64::max);
        let ratio = if entrant.is_ours() { String::new() } else { format!("{:.2} of it", ours / middle) };
        let mut aim = String::new();
        if let Some(target) = targets.iter().find(|target| target.rival == entrant.name) {
            let verdict = if ours >= target.share * middle { "met" } else { "MISSED" };
            let _ = write!(aim, "{}: {verdict}", target.share);
        }
        println!(
            "| {work} | {} | {middle:.0} | {lowest:.0} to {highest:.0} | {ratio} | {aim} |",
            entrant.name
        );
    }
}

// === what is started ===

/// A Postfix that is not held back: no reverse look-ups, no limits per client, enough processes.
const POSTFIX: &str = "myhostname = postfix.example\n\
    relay_domains = example.org\n\
    mynetworks = 192.0.2.1\n\
    smtpd_relay_restrictions = permit_auth_destination, reject\n\
    smtpd_peername_lookup = no\n\
    smtpd_client_event_limit_exceptions = static:all\n\
    default_process_limit = 100\n\
    maillog_file_prefixes = /dev, /tmp, /var\n";

fn entrant(name: &'static str, endpoint: SocketAddr) -> Entrant {
    Entrant { name, endpoint, results: Vec::new() }
}

/// A Postfix that asks postgrey about every recipient.
fn greylisting_postfix() -> (Postfix, Postgrey) {
    let postgrey = Postgrey::start();
    let main =
        format!("{POSTFIX}smtpd_recipient_restrictions = check_policy_service inet:{}\n", postgrey.endpoint);
    (Postfix::start(&PostfixRole::Measured { main }), postgrey)
}

fn gateway(
    upstream: SocketAddr,
    greylisting: &str,
    builder: GatewayBuilder,
) -> Result<(Gateway, SocketAddr, TempDir)> {
    let folder = tempfile::tempdir()?;
    let policy = PolicyFile::to(upstream).greylisting(greylisting);
    let builder = builder.flag("--max-connections-per-network", 20_000).log_to(&folder.path().join("log"));
    let gateway = builder.start(&policy.text());
    let endpoint = gateway.smtp;
    Ok((gateway, endpoint, folder))
}

fn bare_server(rcpt: &str) -> Result<(Process, SocketAddr)> {
    let endpoint = endpoint();
    let process =
        Process::start(Command::new(beside("torwart-bare-server")?).args([&endpoint.to_string(), rcpt]));
    wait_listening(endpoint);
    Ok((process, endpoint))
}

fn generator(to: SocketAddr, work: &[&str]) -> Command {
    let mut command = Command::new(beside("torwart-loadgen").unwrap_or_default());
    command.arg(to.to_string()).args(work);
    command
}

/// Connections that are held until this is dropped.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn hold(to: SocketAddr, count: usize, flags: &[&str]) -> Result<Held> {
    let mut command = generator(to, &["idle", "--connections", &count.to_string()]);
    let mut child = command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let held = Held(child);
    ensure!(line.trim() == "held", "{count} connections could not be held");
    // The server may still be putting the last ones away.
    std::thread::sleep(Duration::from_millis(500));
    Ok(held)
}

/// Another program of this package, built along with this one.
fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// What this was measured on.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let first_line = |program: &str, flag: &str| {
        Output::of(Command::new(program).args(flag.split(' ')))
            .text
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let postfix = first_line("postconf", "-d mail_version").replace("mail_version = ", "Postfix ");
    format!(
        "{cores} cores of {}, Linux {}; {postfix}; {}; postgrey {}",
        model.unwrap_or("an unknown processor"),
        kernel.trim(),
        first_line("haproxy", "-v"),
        first_line("postgrey", "--version").trim_start_matches("postgrey "),
    )
}
