//! An SMTP server on a real socket that does at each step what the test says.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What the server does instead of going on.
#[derive(Clone, Debug)]
pub(super) enum Say {
    /// These bytes, as they are.
    Text(&'static str),
    /// These bytes, then the connection is closed.
    Last(&'static str),
    /// The first, and after the next read the second; then the connection is closed.
    LastAfter(&'static str, &'static str),
    /// These bytes again and again, for as long as they are taken.
    Endless(&'static str),
    Close,
    /// Nothing, with the connection open.
    Silence,
}

/// One connection's script. The default is a server that takes everything.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) banner: Say,
    pub(super) ehlo: Say,
    /// The answer to XCLIENT and to XFORWARD.
    pub(super) identity: Say,
    /// A PROXY header (version 2) comes before everything else.
    pub(super) proxied: bool,
    pub(super) start_tls: Say,
    /// The handshake after "220" to STARTTLS, or from the first byte if `implicit`.
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) implicit: bool,
    /// Answers to the first, second.. MAIL; the last one repeats.
    pub(super) mail: Vec<Say>,
    /// Answers to the recipients whose path begins with the word, else "250 ok".
    pub(super) rcpt: Vec<(&'static str, Say)>,
    pub(super) data: Say,
    /// Said after so many bytes of message; then the server reads no more.
    pub(super) early: Option<(usize, Say)>,
    pub(super) dot: Say,
    /// Said right after the answer to the dot.
    pub(super) chatter: Option<Say>,
    pub(super) rset: Say,
}

/// What the server saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) closed: usize,
    pub(super) commands: Vec<String>,
    /// What each read brought.
    pub(super) reads: Vec<Vec<u8>>,
    /// Un-stuffed, one for each dot.
    pub(super) messages: Vec<Vec<u8>>,
    /// A script's `chatter` was said.
    pub(super) chattered: bool,
    /// PROXY headers.
    pub(super) headers: Vec<Vec<u8>>,
    /// Connections that were encrypted.
    pub(super) encrypted: usize,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    changes: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

struct Peer {
    io: Box<dyn Io>,
    buffer: Vec<u8>,
    script: Script,
    seen: Arc<Mutex<Seen>>,
    changes: watch::Sender<()>,
}

pub(super) const OK: Say = Say::Text("250 2.0.0 ok\r\n");
pub(super) const EHLO: &str = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 8BITMIME\r\n";
pub(super) const EHLO_TLS: &str = "250-mx.example\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n";

impl Default for Script {
    fn default() -> Self {
        Self {
            banner: Say::Text("220 mx.example ESMTP\r\n"),
            ehlo: Say::Text(EHLO),
            identity: Say::Text("220 mx.example ESMTP\r\n"),
            proxied: false,
            start_tls: Say::Text("220 go ahead\r\n"),
            acceptor: None,
            implicit: false,
            mail: vec![OK],
            rcpt: Vec::new(),
            data: Say::Text("354 end with a dot\r\n"),
            early: None,
            dot: Say::Text("250 2.0.0 queued as 1\r\n"),
            chatter: None,
            rset: OK,
        }
    }
}

impl Server {
    /// The first connection gets the first script, and so on; the last one repeats.
    pub(super) async fn start(scripts: Vec<Script>) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), scripts)
    }

    pub(super) fn serve(listener: TcpListener, scripts: Vec<Script>) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let changes = watch::Sender::new(());
        let mut tasks = JoinSet::new();
        let (shared, sender) = (seen.clone(), changes.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // Else a second reply waits for the first one's acknowledgement.
                tcp.set_nodelay(true).unwrap();
                let count = {
                    let mut seen = shared.lock().unwrap();
                    seen.connections += 1;
                    seen.connections
                };
                sender.send_replace(());
                let script = scripts[(count - 1).min(scripts.len() - 1)].clone();
                let mut peer = Peer {
                    io: Box::new(tcp),
                    buffer: Vec::new(),
                    script,
                    seen: shared.clone(),
                    changes: sender.clone(),
                };
                connections.spawn(async move {
                    let _ = peer.run().await;
                    peer.note(|seen| seen.closed += 1);
                });
            }
        });
        Self { address, seen, changes, _tasks: tasks }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until what the server saw is as it should be.
    pub(super) async fn until(&self, holds: impl Fn(&Seen) -> bool) {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            while !holds(&self.seen()) {
                changes.changed().await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(20);
        assert!(tokio::time::timeout(limit, waiting).await.is_ok(), "never came: {:?}", self.seen());
    }
}

impl Peer {
    async fn run(&mut self) -> io::Result<()> {
        if self.script.proxied {
            let header = self.header().await?;
            self.note(|seen| seen.headers.push(header));
        }
        if self.script.implicit {
            self.encrypt().await?;
        }
        self.say(self.script.banner.clone()).await?;
        let mut mails = 0;
        loop {
            let line = self.line().await?;
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            self.note(|seen| seen.commands.push(line.clone()));
            match verb.as_str() {
                "XCLIENT" | "XFORWARD" => self.say(self.script.identity.clone()).await?,
                "EHLO" | "HELO" | "LHLO" => self.say(self.script.ehlo.clone()).await?,
                "STARTTLS" => {
                    self.say(self.script.start_tls.clone()).await?;
                    self.encrypt().await?;
                    self.script.ehlo = Say::Text(EHLO);
                }
                "MAIL" => {
                    let answer = self.script.mail[mails.min(self.script.mail.len() - 1)].clone();
                    mails += 1;
                    self.say(answer).await?;
                }
                "RCPT" => {
                    let path = line.split_once('<').map_or("", |(_, path)| path);
                    let known = self.script.rcpt.iter().find(|(word, _)| path.starts_with(word));
                    self.say(known.map_or(OK, |(_, say)| say.clone())).await?;
                }
                "DATA" => {
                    self.say(self.script.data.clone()).await?;
                    let message = self.message().await?;
                    self.note(|seen| seen.messages.push(message));
                    self.say(self.script.dot.clone()).await?;
                    if let Some(chatter) = self.script.chatter.clone() {
                        let done = self.say(chatter).await;
                        self.note(|seen| seen.chattered = true);
                        done?;
                    }
                }
                "RSET" => self.say(self.script.rset.clone()).await?,
                "QUIT" => return self.say(Say::Last("221 bye\r\n")).await,
                _ => self.say(Say::Text("500 5.5.1 what?\r\n")).await?,
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changes.send_replace(());
    }

    async fn say(&mut self, say: Say) -> io::Result<()> {
        match say {
            Say::Text(text) => {
                self.io.write_all(text.as_bytes()).await?;
                self.io.flush().await
            }
            Say::Last(text) => {
                self.io.write_all(text.as_bytes()).await?;
                self.io.shutdown().await?;
                self.note(|seen| seen.chattered = true);
                // Reads what comes, so that the close is no reset.
                while self.read().await.is_ok() {}
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Say::LastAfter(first, second) => {
                self.io.write_all(first.as_bytes()).await?;
                self.read().await?;
                self.io.write_all(second.as_bytes()).await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Say::Endless(text) => loop {
                self.io.write_all(text.as_bytes()).await?;
            },
            Say::Close => Err(io::ErrorKind::ConnectionAborted.into()),
            Say::Silence => {
                self.read_to_end().await;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }

    async fn read_to_end(&mut self) {
        while self.read().await.is_ok() {}
    }

    async fn read(&mut self) -> io::Result<()> {
        let start = self.buffer.len();
        self.buffer.reserve(64 * 1024);
        if self.io.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let chunk = self.buffer[start..].to_vec();
        self.note(|seen| seen.reads.push(chunk));
        Ok(())
    }

    /// No octet more: what follows may be the beginning of a handshake.
    async fn header(&mut self) -> io::Result<Vec<u8>> {
        let mut header = vec![0; 16];
        self.io.read_exact(&mut header).await?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
        self.io.read_exact(&mut rest).await?;
        header.extend(rest);
        Ok(header)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.read().await?;
        }
    }

    async fn message(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        let mut total = 0;
        loop {
            if let Some((limit, say)) = self.script.early.clone()
                && total + self.buffer.len() >= limit
            {
                self.say(say).await?;
                // Open, but deaf.
                std::future::pending::<()>().await;
            }
            let mut done = 0;
            while let Some(end) = self.buffer[done..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[done..=done + end];
                done += line.len();
                if line == b".\r\n" {
                    self.buffer.drain(..done);
                    return Ok(message);
                }
                message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            }
            total += done;
            self.buffer.drain(..done);
            self.read().await?;
        }
    }

    async fn encrypt(&mut self) -> io::Result<()> {
        let Some(acceptor) = self.script.acceptor.clone() else { return Ok(()) };
        let clear = std::mem::replace(&mut self.io, Box::new(tokio::io::empty()));
        self.io = Box::new(acceptor.accept(clear).await?);
        self.buffer.clear();
        self.note(|seen| seen.encrypted += 1);
        Ok(())
    }
}
