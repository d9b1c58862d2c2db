//! A mail server that keeps every message octet by octet and fails where it is told to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::{PATIENCE, PolicyFile, endpoint};

/// Where in a transaction a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Banner,
    Ehlo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// After the first octets of the message.
    Body,
    /// After the final dot.
    Dot,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Says these octets instead of its reply. No line end is added.
    Say(Vec<u8>),
    /// The same, then closes.
    SayAndClose(Vec<u8>),
    Close,
    /// At the dot: keeps the message, then closes without a reply.
    KeepAndClose,
    /// Answers as always, but octet by octet.
    Trickle,
    /// Says nothing more, and goes when the peer does.
    Hang,
    /// Says these octets over and over until the peer goes.
    Flood(Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub step: Step,
    pub act: Act,
    /// Strikes each `every`th time that the step is reached.
    pub every: u32,
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub struct Received {
    pub helo: String,
    pub from: String,
    pub to: Vec<String>,
    /// The MAIL line as it came.
    pub mail: String,
    /// Without stuffing and without the final dot.
    pub content: Vec<u8>,
    /// Whether a 250 was sent for it.
    pub acknowledged: bool,
}

pub struct Upstream {
    shared: Arc<Shared>,
    pub endpoint: SocketAddr,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    reached: u32,
    struck: u32,
    received: Vec<Received>,
    connections: Vec<TcpStream>,
    accepted: usize,
    listening: bool,
    ended: bool,
    capabilities: Vec<String>,
    unknown_recipients: Vec<String>,
}

/// Why a connection's thread stops; there is nobody to tell.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Upstream {
    pub fn start() -> Self {
        Self::start_with(&["PIPELINING", "SIZE 104857600", "8BITMIME", "ENHANCEDSTATUSCODES"])
    }

    /// With an EHLO reply of choice.
    pub fn start_with(capabilities: &[&str]) -> Self {
        let upstream = Self { shared: Arc::default(), endpoint: endpoint() };
        upstream.shared.state.lock().unwrap().capabilities =
            capabilities.iter().map(|word| (*word).to_owned()).collect();
        upstream.open();
        upstream
    }

    /// Listens (again).
    pub fn open(&self) {
        let listener = TcpListener::bind(self.endpoint).unwrap();
        self.shared.state.lock().unwrap().listening = true;
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || accept(&listener, &shared));
    }

    /// Refuses connections until [`Upstream::open`], and drops those that there are.
    pub fn close(&self) {
        self.shared.state.lock().unwrap().listening = false;
        // One connection makes the accepting thread look; it has gone once it no longer takes any.
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&self.endpoint, PATIENCE).is_ok() {
            assert!(Instant::now() < end, "the upstream does not close");
            std::thread::yield_now();
        }
        self.drop_connections();
    }

    /// From now on this goes wrong; `None` ends it. Connections that are open go, so that the next one meets it.
    pub fn fail(&self, fault: Option<Fault>) {
        let mut state = self.shared.state.lock().unwrap();
        state.fault = fault;
        state.reached = 0;
        state.struck = 0;
        drop(state);
        self.drop_connections();
    }

    /// Always, at this step.
    pub fn fail_always(&self, step: Step, act: Act) {
        self.fail(Some(Fault { step, act, every: 1 }));
    }

    /// How often the present fault has struck.
    pub fn struck(&self) -> u32 {
        self.shared.state.lock().unwrap().struck
    }

    /// RCPT for this path is answered 550 5.1.1.
    pub fn unknown_recipient(&self, path: &str) {
        self.shared.state.lock().unwrap().unknown_recipients.push(path.to_owned());
    }

    pub fn drop_connections(&self) {
        for connection in self.shared.state.lock().unwrap().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.shared.state.lock().unwrap().accepted
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.state.lock().unwrap().received.clone()
    }

    /// Waits until `count` messages are there.
    #[track_caller]
    pub fn wait_received(&self, count: usize) -> Vec<Received> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        while state.received.len() < count {
            let left = end.checked_duration_since(Instant::now());
            let Some(left) = left else { panic!("{} messages of {count} came", state.received.len()) };
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
        state.received.clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        let listening = std::mem::take(&mut state.listening);
        state.ended = true;
        drop(state);
        self.drop_connections();
        if listening {
            let _ = TcpStream::connect_timeout(&self.endpoint, Duration::from_secs(1));
        }
    }
}

/// The fields that the gateway puts on top of a message, taken off again.
pub fn without_added_fields(content: &[u8]) -> &[u8] {
    let mut rest = content;
    loop {
        let lower: Vec<u8> = rest.iter().take(400).map(u8::to_ascii_lowercase).collect();
        let ours = lower.starts_with(b"x-torwart-")
            || lower.starts_with(b"received:")
                && contains(first_field(rest), PolicyFile::HOSTNAME.as_bytes());
        if !ours {
            return rest;
        }
        rest = &rest[first_field(rest).len()..];
    }
}

/// The first header field with its continuation lines.
fn first_field(content: &[u8]) -> &[u8] {
    let mut end = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if end > 0 && !matches!(line.first(), Some(b' ' | b'\t')) {
            break;
        }
        end += line.len();
    }
    &content[..end]
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut state = shared.state.lock().unwrap();
        if !state.listening {
            return;
        }
        state.accepted += 1;
        state.connections.extend(stream.try_clone());
        drop(state);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let mut connection = Connection { stream, pending: Vec::new(), shared: &shared };
            let _ = connection.serve();
        });
    }
}

struct Connection<'a> {
    stream: TcpStream,
    pending: Vec<u8>,
    shared: &'a Shared,
}

impl Connection<'_> {
    fn serve(&mut self) -> Result<(), Gone> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        self.step(Step::Banner, b"220 upstream.example ESMTP\r\n")?;
        let (mut helo, mut mail, mut to) = (String::new(), None, Vec::new());
        loop {
            let line = String::from_utf8_lossy(&self.line()?).into_owned();
            let upper = line.to_ascii_uppercase();
            let verb = upper.split([' ', ':']).next().unwrap_or_default();
            match verb {
                "EHLO" => {
                    line.get(5..).unwrap_or_default().clone_into(&mut helo);
                    let reply = self.ehlo_reply();
                    self.step(Step::Ehlo, &reply)?;
                }
                "HELO" => {
                    line.get(5..).unwrap_or_default().clone_into(&mut helo);
                    self.step(Step::Ehlo, b"250 upstream.example\r\n")?;
                }
                "MAIL" => {
                    if self.step(Step::Mail, b"250 2.1.0 sender ok\r\n")? {
                        mail = Some(line);
                    }
                    to.clear();
                }
                "RCPT" => {
                    let path = path(&line);
                    if self.is_unknown(&path) {
                        self.say(b"550 5.1.1 nobody here\r\n")?;
                    } else if self.step(Step::Rcpt, b"250 2.1.5 recipient ok\r\n")? {
                        to.push(path);
                    }
                }
                "DATA" if mail.is_none() || to.is_empty() => self.say(b"503 5.5.1 not now\r\n")?,
                "DATA" => {
                    if !self.step(Step::Data, b"354 go on\r\n")? {
                        continue;
                    }
                    let content = self.content()?;
                    let mail = mail.take().unwrap_or_default();
                    let received = Received {
                        helo: helo.clone(),
                        from: path(&mail),
                        to: std::mem::take(&mut to),
                        mail,
                        content,
                        acknowledged: true,
                    };
                    self.finish(received)?;
                }
                "RSET" => {
                    (mail, to) = (None, Vec::new());
                    self.say(b"250 2.0.0 ok\r\n")?;
                }
                "STARTTLS" => drop(self.step(Step::StartTls, b"454 4.7.0 no TLS here\r\n")?),
                "NOOP" => self.say(b"250 2.0.0 ok\r\n")?,
                "QUIT" => {
                    self.say(b"221 2.0.0 bye\r\n")?;
                    return Err(Gone);
                }
                _ => self.say(b"500 5.5.2 what\r\n")?,
            }
        }
    }

    fn ehlo_reply(&self) -> Vec<u8> {
        let state = self.shared.state.lock().unwrap();
        let mut lines = vec!["upstream.example".to_owned()];
        lines.extend(state.capabilities.iter().cloned());
        let last = lines.len() - 1;
        let separator = |i| if i == last { ' ' } else { '-' };
        lines
            .iter()
            .enumerate()
            .map(|(i, line)| format!("250{}{line}\r\n", separator(i)))
            .collect::<String>()
            .into()
    }

    fn is_unknown(&self, path: &str) -> bool {
        self.shared.state.lock().unwrap().unknown_recipients.iter().any(|unknown| unknown == path)
    }

    /// The message up to its end, which is CRLF.CRLF and nothing else.
    fn content(&mut self) -> Result<Vec<u8>, Gone> {
        let mut content = Vec::new();
        let mut first = true;
        loop {
            let line = self.raw_line()?;
            if std::mem::take(&mut first) {
                self.step(Step::Body, b"")?;
            }
            // A line feed alone ends no line, so the next "line" is the same one's rest.
            let at_line_start = content.is_empty() || content.ends_with(b"\r\n");
            match line.strip_prefix(b".") {
                Some(b"\r\n") if at_line_start => return Ok(content),
                Some(rest) if at_line_start => content.extend_from_slice(rest),
                _ => content.extend_from_slice(&line),
            }
        }
    }

    fn finish(&mut self, mut received: Received) -> Result<(), Gone> {
        let act = self.strike(Step::Dot);
        match act {
            None | Some(Act::Trickle) => {
                self.keep(received);
                let reply = b"250 2.0.0 kept\r\n";
                if act.is_some() { self.trickle(reply) } else { self.say(reply) }
            }
            Some(Act::KeepAndClose) => {
                received.acknowledged = false;
                self.keep(received);
                self.close()
            }
            Some(act) => self.act(act, b"").map(drop),
        }
    }

    fn keep(&self, received: Received) {
        self.shared.state.lock().unwrap().received.push(received);
        self.shared.changed.notify_all();
    }

    /// Says `reply`, or what the fault wants. True if it was the reply.
    fn step(&mut self, step: Step, reply: &[u8]) -> Result<bool, Gone> {
        match self.strike(step) {
            None => self.say(reply).map(|()| true),
            Some(act) => self.act(act, reply),
        }
    }

    fn strike(&self, step: Step) -> Option<Act> {
        let mut state = self.shared.state.lock().unwrap();
        let fault = state.fault.clone().filter(|fault| fault.step == step)?;
        state.reached += 1;
        state.reached.is_multiple_of(fault.every).then(|| {
            state.struck += 1;
            fault.act
        })
    }

    fn act(&mut self, act: Act, reply: &[u8]) -> Result<bool, Gone> {
        match act {
            Act::Say(text) => self.say(&text).map(|()| false),
            Act::SayAndClose(text) => {
                self.say(&text)?;
                self.close().map(|()| false)
            }
            Act::Close | Act::KeepAndClose => self.close().map(|()| false),
            Act::Trickle => self.trickle(reply).map(|()| true),
            Act::Hang => {
                self.wait_for_end();
                Err(Gone)
            }
            Act::Flood(text) => loop {
                self.say(&text)?;
            },
        }
    }

    fn say(&mut self, text: &[u8]) -> Result<(), Gone> {
        Ok(self.stream.write_all(text)?)
    }

    fn trickle(&mut self, text: &[u8]) -> Result<(), Gone> {
        for octet in text.chunks(1) {
            self.say(octet)?;
            // Slowness is what is played here.
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends with FIN, not RST: what was said must arrive.
    fn close(&mut self) -> Result<(), Gone> {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.wait_for_end();
        Err(Gone)
    }

    fn wait_for_end(&mut self) {
        let mut sink = [0; 4096];
        while matches!(self.stream.read(&mut sink), Ok(n) if n > 0) {}
    }

    fn line(&mut self) -> Result<Vec<u8>, Gone> {
        let mut line = self.raw_line()?;
        while matches!(line.last(), Some(b'\r' | b'\n')) {
            line.pop();
        }
        Ok(line)
    }

    fn raw_line(&mut self) -> Result<Vec<u8>, Gone> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(self.pending.drain(..=searched + end).collect());
            }
            searched = self.pending.len();
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Gone),
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // The list holds a second handle on the socket, so dropping this one would not close it.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>')).map(|(inner, _)| inner);
    inner.unwrap_or_default().to_owned()
}
