//! The mail server behind the gateway in the demo: takes every mail and keeps it in memory.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// One mail as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
    /// Lines without their line ends, dots un-stuffed.
    pub(super) lines: Vec<String>,
}

/// A running server; it ends with the demo's runtime.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    mails: Vec<Mail>,
}

/// The demo's lines are short; the gateway sends none longer than 1000 (RFC 5321 section 4.5.3.1.6).
const LONGEST_LINE: u64 = 4096;
/// The demo sends five mails.
const MOST_MAILS: usize = 100;
const MOST_LINES: usize = 10_000;
/// The gateway may keep a connection for later use.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

// === impl Upstream ===

impl Upstream {
    /// Listens on a free port of loopback.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                with(&shared, |seen| seen.connections += 1);
                // A broken connection is the end of that session only.
                tokio::spawn(session(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, seen })
    }

    pub(super) fn connections(&self) -> usize {
        with(&self.seen, |seen| seen.connections)
    }

    pub(super) fn mails(&self) -> Vec<Mail> {
        with(&self.seen, |seen| seen.mails.clone())
    }
}

fn with<T>(seen: &Mutex<Seen>, change: impl FnOnce(&mut Seen) -> T) -> T {
    change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn session(stream: TcpStream, seen: Arc<Mutex<Seen>>) -> io::Result<()> {
    // Replies to commands that came together are not to wait for each other.
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut mail = Mail { sender: String::new(), recipients: Vec::new(), lines: Vec::new() };
    stream.write_all(b"220 mail.demo.example your mail server\r\n").await?;
    loop {
        let line = read_line(&mut stream).await?;
        let (verb, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
        let reply = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => "250-mail.demo.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 52428800\r\n",
            "HELO" | "NOOP" => "250 OK\r\n",
            "RSET" => {
                mail.recipients.clear();
                "250 OK\r\n"
            }
            "MAIL" => {
                mail.sender = path(rest);
                mail.recipients.clear();
                "250 2.1.0 sender OK\r\n"
            }
            "RCPT" => {
                mail.recipients.push(path(rest));
                "250 2.1.5 recipient OK\r\n"
            }
            "DATA" => {
                stream.write_all(b"354 go ahead\r\n").await?;
                mail.lines = read_message(&mut stream).await?;
                let room = with(&seen, |seen| {
                    let room = seen.mails.len() < MOST_MAILS;
                    if room {
                        seen.mails.push(mail.clone());
                    }
                    room
                });
                if room { "250 2.0.0 kept\r\n" } else { "452 4.3.1 full\r\n" }
            }
            "QUIT" => {
                stream.write_all(b"221 2.0.0 bye\r\n").await?;
                return Ok(());
            }
            _ => "500 5.5.1 not here\r\n",
        };
        stream.write_all(reply.as_bytes()).await?;
    }
}

async fn read_message(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line == "." {
            return Ok(lines);
        }
        if lines.len() == MOST_LINES {
            return Err(io::Error::other("the message is too long for a demo"));
        }
        lines.push(line.strip_prefix('.').unwrap_or(&line).to_owned());
    }
}

/// One line without its CRLF.
async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    let mut limited = stream.take(LONGEST_LINE);
    timeout(IDLE_LIMIT, limited.read_until(b'\n', &mut line)).await??;
    let Some(content) = line.strip_suffix(b"\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    Ok(String::from_utf8_lossy(content).into_owned())
}

/// What stands between the angle brackets.
fn path(argument: &str) -> String {
    let inner = argument.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(path, _)| path.to_owned())
}
