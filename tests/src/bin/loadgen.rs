//! The load that the benchmark puts on every server alike: one connection per message, in step, no pipelining,
//! every triplet of network, sender and recipient a new one.
//!
//!     torwart-loadgen ADDR greylist --connections 40 --seconds 4
//!     torwart-loadgen ADDR message --size 10240 --connections 40 --seconds 4
//!     torwart-loadgen ADDR idle --connections 10000 [--tls starttls|implicit --ca FILE]
//!
//! `greylist` and `message` print one line of JSON: what was done within the seconds after one of warming up.
//! `idle` prints `held` once all connections are greeted, and ends with its standard input.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

const THREADS: usize = 2;
const WARM_UP: Duration = Duration::from_secs(1);
/// Longer than anything here should take; a session that exceeds it is an error.
const LIMIT: Duration = Duration::from_secs(30);
/// The networks that clients come from.
const SOURCES: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Greylist,
    Message,
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    No,
    Upgrade,
    Implicit,
}

#[derive(Clone, Debug)]
struct Plan {
    to: SocketAddr,
    work: Work,
    connections: usize,
    seconds: u64,
    size: usize,
    tls: Tls,
    ca: Option<PathBuf>,
}

/// What the tasks share.
struct Load {
    to: SocketAddr,
    /// Empty: RCPT must be deferred. Otherwise it must be accepted, and this follows DATA, end and all.
    message: Vec<u8>,
    next: AtomicU64,
    counting: AtomicBool,
    stopping: AtomicBool,
    done: AtomicU64,
    errors: AtomicU64,
}

fn main() -> Result<()> {
    let plan = Plan::read()?;
    if plan.work == Work::Idle { hold(&plan) } else { run(&plan) }
}

// === impl Plan ===

impl Plan {
    fn read() -> Result<Self> {
        let mut words = std::env::args().skip(1);
        let to = words.next().context("ADDR is missing")?.parse().context("ADDR")?;
        let work = match words.next().as_deref() {
            Some("greylist") => Work::Greylist,
            Some("message") => Work::Message,
            Some("idle") => Work::Idle,
            other => bail!("greylist, message or idle, not {other:?}"),
        };
        let mut plan = Self { to, work, connections: 40, seconds: 4, size: 10_240, tls: Tls::No, ca: None };
        while let Some(flag) = words.next() {
            let value = words.next().with_context(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--connections" => plan.connections = value.parse().context("--connections")?,
                "--seconds" => plan.seconds = value.parse().context("--seconds")?,
                "--size" => plan.size = value.parse().context("--size")?,
                "--ca" => plan.ca = Some(value.into()),
                "--tls" if value == "starttls" => plan.tls = Tls::Upgrade,
                "--tls" if value == "implicit" => plan.tls = Tls::Implicit,
                _ => bail!("unknown: {flag} {value}"),
            }
        }
        Ok(plan)
    }
}

// === greylist, message ===

fn run(plan: &Plan) -> Result<()> {
    let message = if plan.work == Work::Message { message(plan.size) } else { Vec::new() };
    let load = Arc::new(Load {
        to: plan.to,
        message,
        next: AtomicU64::new(u64::from(std::process::id()) << 24),
        counting: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        done: AtomicU64::new(0),
        errors: AtomicU64::new(0),
    });
    let share = plan.connections.div_ceil(THREADS);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let load = Arc::clone(&load);
            std::thread::spawn(move || drive(&load, share))
        })
        .collect();
    std::thread::sleep(WARM_UP);
    load.counting.store(true, Ordering::Relaxed);
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(plan.seconds));
    load.counting.store(false, Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    load.stopping.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    let (done, errors) = (load.done.load(Ordering::Relaxed), load.errors.load(Ordering::Relaxed));
    let result = serde_json::json!({ "done": done, "errors": errors, "seconds": seconds });
    println!("{result}");
    Ok(())
}

/// `connections` tasks on this thread, each one session after another.
fn drive(load: &Arc<Load>, connections: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let load = Arc::clone(load);
                tokio::spawn(async move {
                    while !load.stopping.load(Ordering::Relaxed) {
                        let number = load.next.fetch_add(1, Ordering::Relaxed);
                        let result = tokio::time::timeout(LIMIT, session(&load, number)).await;
                        if !load.counting.load(Ordering::Relaxed) {
                            continue;
                        }
                        match result {
                            Ok(Ok(())) => load.done.fetch_add(1, Ordering::Relaxed),
                            Ok(Err(error)) => {
                                if load.errors.fetch_add(1, Ordering::Relaxed) == 0 {
                                    eprintln!("first error: {error:#}");
                                }
                                0
                            }
                            Err(_) => load.errors.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}

async fn session(load: &Load, number: u64) -> Result<()> {
    let mut stream = connect(load.to, number).await?;
    let mut buffer = Vec::with_capacity(512);
    expect(&mut stream, &mut buffer, b'2').await?;
    let word = word(number);
    ask(&mut stream, &mut buffer, "EHLO client.sender.example\r\n", b'2').await?;
    ask(&mut stream, &mut buffer, &format!("MAIL FROM:<{word}@sender.example>\r\n"), b'2').await?;
    let rcpt = "RCPT TO:<bert@example.org>\r\n";
    if load.message.is_empty() {
        ask(&mut stream, &mut buffer, rcpt, b'4').await?;
        // A server that is out of order defers as well, and faster.
        let greylisted = buffer.windows(7).any(|word| word.eq_ignore_ascii_case(b"greylis"));
        ensure!(greylisted, "{}", String::from_utf8_lossy(&buffer).trim_end());
    } else {
        ask(&mut stream, &mut buffer, rcpt, b'2').await?;
        ask(&mut stream, &mut buffer, "DATA\r\n", b'3').await?;
        stream.write_all(&load.message).await?;
        expect(&mut stream, &mut buffer, b'2').await?;
    }
    ask(&mut stream, &mut buffer, "QUIT\r\n", b'2').await
}

/// Letters only, and none of a to f: gateways fold digits and long hexadecimal runs of a sender together.
fn word(mut number: u64) -> String {
    let mut word = String::from("s");
    while number > 0 {
        word.push(char::from(b'g' + (number % 20) as u8));
        number /= 20;
    }
    word
}

/// A message of about `size` octets in lines of 72, stuffed as it needs no stuffing, with its end.
fn message(size: usize) -> Vec<u8> {
    let mut out = b"From: <a@sender.example>\r\nTo: <bert@example.org>\r\nSubject: load\r\nMessage-ID: <1@sender.example>\r\n\r\n".to_vec();
    while out.len() < size {
        out.extend_from_slice(b"abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz01234567\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

// === idle ===

fn hold(plan: &Plan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connector = plan.ca.as_ref().map(connector).transpose()?;
        let mut plain = Vec::new();
        let mut secured = Vec::new();
        for number in 0..plan.connections as u64 {
            let mut stream =
                connect(plan.to, number).await.with_context(|| format!("connection {number}"))?;
            let mut buffer = Vec::new();
            if plan.tls != Tls::Implicit {
                expect(&mut stream, &mut buffer, b'2').await?;
            }
            if plan.tls == Tls::No {
                plain.push(stream);
                continue;
            }
            if plan.tls == Tls::Upgrade {
                ask(&mut stream, &mut buffer, "EHLO client.sender.example\r\n", b'2').await?;
                ask(&mut stream, &mut buffer, "STARTTLS\r\n", b'2').await?;
            }
            let connector = connector.as_ref().context("--tls wants --ca")?;
            let mut stream = connector.connect(ServerName::try_from("mx.example.net")?, stream).await?;
            if plan.tls == Tls::Implicit {
                expect(&mut stream, &mut buffer, b'2').await?;
            } else {
                ask(&mut stream, &mut buffer, "EHLO client.sender.example\r\n", b'2').await?;
            }
            secured.push(stream);
        }
        println!("held");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(())
    })
}

/// Trusts this one certificate and nothing else.
fn connector(ca: &PathBuf) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // Ten thousand sessions would be kept here for nothing.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

// === the wire ===

/// From a loopback address of the number's network, so that no network is over a limit and none runs out of ports.
async fn connect(to: SocketAddr, number: u64) -> Result<TcpStream> {
    let source = (number % SOURCES) as u8;
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if to.ip().is_loopback() && to.is_ipv4() {
        socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 5, source, 1)), 0).into())?;
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    line: &str,
    class: u8,
) -> Result<()> {
    stream.write_all(line.as_bytes()).await?;
    expect(stream, buffer, class).await.with_context(|| line.trim_end().to_owned())
}

/// Reads one reply, which must be of this class.
async fn expect<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>, class: u8) -> Result<()> {
    buffer.clear();
    loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection closed");
        if !buffer.ends_with(b"\n") {
            continue;
        }
        // Nothing is pipelined, so what is there is one reply; its last line has a space after the code.
        let body = &buffer[..buffer.len() - 1];
        let last = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if body.get(last + 3) != Some(&b'-') {
            ensure!(buffer.first() == Some(&class), "{}", String::from_utf8_lossy(buffer).trim_end());
            return Ok(());
        }
    }
}
