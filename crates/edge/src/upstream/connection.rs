//! One connection to an upstream: the socket under `smtp::client::Client`.
//!
//! Reading goes through a buffer on the stack, so a connection that waits holds no buffer. Writing watches for what
//! the upstream says meanwhile: an upstream that answers before it was asked, or that stops reading because it has
//! already refused, is noticed and not waited for.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use torwart_core::Protocol;
use torwart_smtp::{Client, ClientConfig as SmtpConfig, ClientEvent, Dialect, Reply, Stage, StartTlsMode};

use super::pool::PoolKey;
use super::setback::Fault;
use super::stream::Stream;

/// A connection and the protocol's state on it. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: PoolKey,
    /// Transactions begun.
    pub(super) transactions: u32,
    client: Client,
    /// `None` only while a handshake has it.
    stream: Option<Stream>,
    heard: VecDeque<Heard>,
    /// What ends the connection, to be told after everything in `heard`.
    fault: Option<Fault>,
    /// How much of the client's output has been written.
    written: usize,
}

/// What the upstream said, in order.
#[derive(Debug)]
pub(super) enum Heard {
    Ready,
    StartTls,
    TlsNotOffered,
    Answer(Answer),
}

/// A reply, cut down to what is kept: hostile upstreams say a lot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) stage: Stage,
    pub(super) code: u16,
    pub(super) enhanced: Option<(u8, u16, u16)>,
    /// Bounded, one line, free of control characters: for the log.
    pub(super) text: String,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    All,
    /// The upstream spoke, or closed, before everything was written.
    Interrupted,
}

/// Octets read at once. Replies are short (RFC 5321 section 4.5.3.1.5: 512 octets a line); twice a pipelined batch's
/// is plenty.
const READ_SIZE: usize = 4096;
/// Characters of an upstream's reply that are kept for the log.
const TEXT_MAX: usize = 300;

// === impl Connection ===

impl Connection {
    /// The protocol starts with the upstream's banner.
    pub(super) fn new(stream: Stream, key: PoolKey, start_tls: StartTlsMode) -> Self {
        let dialect = match key.protocol {
            Protocol::Smtp => Dialect::Smtp,
            Protocol::Lmtp => Dialect::Lmtp,
        };
        let config = SmtpConfig { hostname: key.hello.clone(), dialect, start_tls };
        let client = match &stream {
            Stream::Plain(_) => Client::new(config),
            Stream::Tls(_) => Client::with_implicit_tls(config),
        };
        Self {
            key,
            transactions: 0,
            client,
            stream: Some(stream),
            heard: VecDeque::new(),
            fault: None,
            written: 0,
        }
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(super) fn unwritten(&mut self) -> usize {
        self.client.output().len().saturating_sub(self.written)
    }

    /// The next thing that the upstream said.
    pub(super) async fn hear(&mut self, until: Instant) -> Result<Heard, Fault> {
        let heard = poll_fn(|cx| {
            loop {
                if let Some(heard) = self.heard.pop_front() {
                    return Poll::Ready(Ok(heard));
                }
                if let Some(fault) = &self.fault {
                    return Poll::Ready(Err(fault.clone()));
                }
                // What was heard may have made the client speak: EHLO after the banner.
                if self.unwritten() > 0 && self.poll_write(cx, false).is_ready() {
                    continue;
                }
                ready!(self.poll_receive(cx));
            }
        });
        timeout_at(until.into(), heard).await.unwrap_or(Err(Fault::Timeout))
    }

    /// The answer to the oldest unanswered command, which was `stage`.
    pub(super) async fn answer(&mut self, stage: Stage, until: Instant) -> Result<Answer, Fault> {
        match self.hear(until).await? {
            Heard::Answer(answer) if answer.stage == stage => Ok(answer),
            other => Err(Fault::Protocol(format!("{other:?} where the answer to {stage:?} was due"))),
        }
    }

    /// Writes everything. An upstream that closes, or speaks out of turn, shows in the next [`Self::hear`].
    pub(super) async fn flush(&mut self, until: Instant) -> Result<(), Fault> {
        self.write(until, false).await.map(|_| ())
    }

    /// Writes everything unless the upstream speaks first: then the rest stays unwritten.
    pub(super) async fn flush_unless_answered(&mut self, until: Instant) -> Result<Written, Fault> {
        self.write(until, true).await
    }

    async fn write(&mut self, until: Instant, stop_at_answer: bool) -> Result<Written, Fault> {
        let written = poll_fn(|cx| self.poll_write(cx, stop_at_answer));
        timeout_at(until.into(), written).await.map_err(|_| Fault::Timeout)
    }

    /// `Interrupted` means that the upstream cannot have got the last of the output; `All`, that it may have.
    fn poll_write(&mut self, cx: &mut Context<'_>, stop_at_answer: bool) -> Poll<Written> {
        while self.unwritten() > 0 {
            if self.watch(cx, stop_at_answer) {
                return Poll::Ready(Written::Interrupted);
            }
            let Some(stream) = &mut self.stream else { return Poll::Ready(Written::Interrupted) };
            let rest = self.client.output().get(self.written..).unwrap_or_default();
            match ready!(Pin::new(stream).poll_write(cx, rest)) {
                Ok(0) => self.fault = Some(Fault::Closed),
                Ok(count) => self.written += count,
                Err(error) => {
                    // What it said before it closed counts more.
                    let _ = self.poll_receive(cx);
                    self.fault.get_or_insert(Fault::from(error));
                }
            }
        }
        if let Some(stream) = &mut self.stream {
            match Pin::new(stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.fault = Some(Fault::from(error)),
                // Encrypted, but not all of it sent: what is left includes the end.
                Poll::Pending => {
                    let speaks = self.watch(cx, stop_at_answer);
                    return if speaks { Poll::Ready(Written::Interrupted) } else { Poll::Pending };
                }
            }
        }
        self.client.output().clear();
        self.written = 0;
        Poll::Ready(Written::All)
    }

    /// Takes in what has come, which costs no system call if nothing has. Whether that is a reason to stop writing.
    fn watch(&mut self, cx: &mut Context<'_>, stop_at_answer: bool) -> bool {
        loop {
            if self.fault.is_some() || stop_at_answer && !self.heard.is_empty() {
                return true;
            }
            if self.poll_receive(cx).is_pending() {
                return false;
            }
        }
    }

    /// One read, digested into `heard` and `fault`.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            self.fault = Some(Fault::Closed);
            return Poll::Ready(());
        };
        let mut storage = [const { MaybeUninit::<u8>::uninit() }; READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut storage);
        let result = ready!(Pin::new(stream).poll_read(cx, &mut buffer));
        match result {
            Ok(()) if buffer.filled().is_empty() => self.fault = Some(Fault::Closed),
            Ok(()) => self.digest(buffer.filled()),
            Err(error) => self.fault = Some(Fault::from(error)),
        }
        Poll::Ready(())
    }

    fn digest(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            let (consumed, event) = match self.client.receive(input) {
                Ok(taken) => taken,
                Err(fault) => {
                    self.fault = Some(Fault::Protocol(fault.to_string()));
                    return;
                }
            };
            self.heard.extend(event.map(Heard::from));
            input = input.get(consumed..).unwrap_or_default();
            if consumed == 0 {
                return;
            }
        }
    }

    /// TLS over what has been clear text so far.
    pub(super) async fn encrypt(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        until: Instant,
    ) -> Result<(), Fault> {
        let Some(Stream::Plain(tcp)) = self.stream.take() else {
            return Err(Fault::Tls("the connection is encrypted already".to_owned()));
        };
        self.stream = Some(handshake(tcp, config, name, until).await?);
        self.client.tls_established();
        Ok(())
    }

    /// Whether an idle connection is open and silent. Costs no system call unless something has come.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.is_in_step() && self.poll_receive(&mut cx).is_pending()
    }

    /// Waits until the upstream speaks or closes although nothing was asked.
    pub(super) async fn disturbed(&mut self) {
        poll_fn(|cx| if self.is_in_step() { self.poll_receive(cx) } else { Poll::Ready(()) }).await;
    }

    /// Every command has been written and answered, and nothing more was said.
    pub(super) fn is_in_step(&mut self) -> bool {
        self.fault.is_none()
            && self.heard.is_empty()
            && self.client.outstanding() == 0
            && self.unwritten() == 0
    }

    /// Gives back buffers that only a transaction needs.
    pub(super) fn shrink(&mut self) {
        *self.client.output() = Vec::new();
        self.written = 0;
        self.heard = VecDeque::new();
    }

    /// Closes, with a QUIT if the protocol allows one and the socket takes it at once. Its answer is not waited for.
    pub(super) fn farewell(mut self: Box<Self>) {
        if !self.is_in_step() {
            return;
        }
        self.client.quit();
        let mut cx = Context::from_waker(Waker::noop());
        if let Some(stream) = &mut self.stream
            && Pin::new(&mut *stream).poll_write(&mut cx, self.client.output()).is_ready()
        {
            let _ = Pin::new(stream).poll_flush(&mut cx);
        }
    }
}

/// A TLS handshake on a fresh connection.
pub(super) async fn handshake(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    until: Instant,
) -> Result<Stream, Fault> {
    let handshake = TlsConnector::from(config).connect(name, tcp);
    match timeout_at(until.into(), handshake).await {
        Ok(Ok(tls)) => Ok(Stream::Tls(Box::new(tls))),
        Ok(Err(error)) => Err(Fault::Tls(error.to_string())),
        Err(_) => Err(Fault::Tls("the handshake took too long".to_owned())),
    }
}

// === impl Heard ===

impl From<ClientEvent> for Heard {
    fn from(event: ClientEvent) -> Self {
        match event {
            ClientEvent::Ready => Self::Ready,
            ClientEvent::StartTls => Self::StartTls,
            ClientEvent::TlsNotOffered => Self::TlsNotOffered,
            ClientEvent::Reply { stage, reply } => Self::Answer(Answer::new(stage, &reply)),
        }
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(stage: Stage, reply: &Reply) -> Self {
        Self { stage, code: reply.code, enhanced: reply.enhanced, text: log_text(reply) }
    }
}

/// The reply as one line of at most [`TEXT_MAX`] characters.
fn log_text(reply: &Reply) -> String {
    let mut text = reply.code.to_string();
    if let Some((class, subject, detail)) = reply.enhanced {
        text.push_str(&format!(" {class}.{subject}.{detail}"));
    }
    let said = reply.lines.iter().flat_map(|line| std::iter::once(' ').chain(line.chars()));
    let room = TEXT_MAX.saturating_sub(text.len());
    text.extend(said.take(room).map(|c| if c.is_control() { '?' } else { c }));
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[&str]) -> String {
        log_text(&Reply {
            code: 550,
            enhanced: Some((5, 1, 1)),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        })
    }

    #[test]
    fn a_reply_is_logged_as_one_bounded_line_without_control_characters() {
        assert_eq!(text(&["no such user"]), "550 5.1.1 no such user");
        assert_eq!(text(&["no", "such\x1b[31m\r\nuser"]), "550 5.1.1 no such?[31m??user");
        assert_eq!(text(&[""]), "550 5.1.1");
        assert_eq!(text(&["ü".repeat(1000).as_str()]).chars().count(), TEXT_MAX);
        assert_eq!(text(&vec!["xx"; 1000]).chars().count(), TEXT_MAX);
    }
}
