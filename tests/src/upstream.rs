//! A mail server that keeps every message octet by octet and fails where it is told to.

mod connection;

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
        std::thread::spawn(move || connection::accept(&listener, &shared));
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
