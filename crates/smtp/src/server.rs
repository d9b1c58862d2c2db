//! The server's side of one session as a value: bytes in, events and bytes out.
//!
//! ```text
//!              greet          MAIL (answered here)
//!  Connected --------> Command ------------------> Command with a transaction
//!                        |  ^                        | RCPT...                 | DATA
//!               STARTTLS |  | tls_established        v                         v
//!                        v  |                    Recipients                AwaitData
//!                      StartTls                      | answer_recipients       | start_data
//!                                                    v                         v
//!  Closed <--- QUIT, limits, time-outs            Command                   Message
//!                                                                              | the dot
//!                                             Command <----- finish_message AwaitReply
//! ```
//!
//! A message in chunks goes through `AwaitData`, `Message` and `AwaitReply` too: see `server/message.rs`.

mod commands;
mod counts;
mod ehlo;
mod event;
mod message;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

pub use counts::CommandCounts;
pub use event::{CloseReason, Event, Keyword, TlsOffer, Transaction};

use self::message::{Discard, Message};
use crate::data::BareNewline;
use crate::{Chunk, Limits, Reply, Verb, Violation, limits};

/// What all sessions of a process share.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Said in the banner and in the replies to EHLO and HELO.
    pub hostname: Arc<str>,
    pub limits: Limits,
    pub bare_newline: BareNewline,
}

/// The server's side of one SMTP session.
///
/// The driver's loop: call [`Session::receive`] with the bytes it holds; do what the event says; write what is in
/// [`Session::output`]; call `receive` again with what is left of the bytes, even if nothing is. Only when there is
/// no event, read more, or wait until [`Session::deadline`].
///
/// The session keeps no part of a command line: the driver does, and presents it again with more behind it. So its
/// buffer must have room for [`Limits::command_line`]. A session between transactions holds no heap memory but the
/// HELO name.
pub struct Session {
    config: Arc<SessionConfig>,
    started: Instant,
    /// When the client last finished something, or was last owed an answer.
    active: Instant,
    output: Vec<u8>,
    helo: Option<Box<str>>,
    transaction: Option<Box<Transaction>>,
    state: State,
    counts: CommandCounts,
    errors: u32,
    unknown_commands: u32,
    idle_commands: u32,
    transactions: u32,
    /// Octets of chunks that may still come behind one that failed, without being errors.
    stray: u64,
    tls: Tls,
    /// A bit for each [`Keyword`].
    hidden: u8,
    esmtp: bool,
    shutting_down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Unavailable,
    Offered,
    Required,
    Active,
}

/// What the session waits for.
enum State {
    /// [`Session::greet`].
    Connected,
    Command,
    /// The CRLF of a line that is no command.
    Swallow {
        swallowed: u32,
        after_cr: bool,
        answered: bool,
    },
    /// Answers for so many recipients.
    Recipients(u32),
    /// [`Session::start_data`] or [`Session::refuse_data`].
    AwaitData,
    Message(Box<Message>),
    /// The octets of a chunk that was refused.
    Discard(Box<Discard>),
    /// [`Session::finish_message`].
    AwaitReply,
    /// [`Session::tls_established`].
    StartTls,
    Closed(CloseReason),
}

/// Go on, or stop with an event or for lack of bytes.
type Step = ControlFlow<Option<Event>>;

// === impl Session ===

impl Session {
    pub fn new(config: Arc<SessionConfig>, now: Instant) -> Self {
        Self {
            config,
            started: now,
            active: now,
            output: Vec::new(),
            helo: None,
            transaction: None,
            state: State::Connected,
            counts: CommandCounts::default(),
            errors: 0,
            unknown_commands: 0,
            idle_commands: 0,
            transactions: 0,
            stray: 0,
            tls: Tls::Unavailable,
            hidden: 0,
            esmtp: false,
            shutting_down: false,
        }
    }

    /// EHLO does not offer it to this client. It works all the same.
    pub fn hide(&mut self, keyword: Keyword) {
        self.hidden |= keyword as u8;
    }

    /// Writes the banner. Nothing is received before.
    pub fn greet(&mut self, tls: TlsOffer) {
        if !matches!(self.state, State::Connected) {
            return;
        }
        self.tls = match tls {
            TlsOffer::Unavailable => Tls::Unavailable,
            TlsOffer::Offered => Tls::Offered,
            TlsOffer::Required => Tls::Required,
        };
        self.write(&["220 ", &Arc::clone(&self.config.hostname), " ESMTP\r\n"]);
        self.state = State::Command;
    }

    /// Writes a 554 or 421 in place of the banner; then the session is closed.
    pub fn refuse_connection(&mut self, reply: &Reply) {
        if matches!(self.state, State::Connected) {
            reply.write_to(&mut self.output);
            self.state = State::Closed(CloseReason::Refused);
        }
    }

    /// Takes bytes from the front of `input`; returns how many, and what to do. Without an event it needs more bytes,
    /// or an answer that it asked for.
    ///
    /// Bytes of a message are appended to `body`, at most two for each byte taken (and three more).
    pub fn receive(&mut self, now: Instant, input: &[u8], body: &mut Vec<u8>) -> (usize, Option<Event>) {
        let mut consumed = 0;
        let event = loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let (taken, step) = self.step(now, rest, body);
            consumed += taken;
            match step {
                ControlFlow::Break(event) => break event,
                ControlFlow::Continue(()) if self.output.len() >= limits::OUTPUT_FLUSH => {
                    break Some(Event::Flush);
                }
                ControlFlow::Continue(()) => {}
            }
        };
        if consumed > 0 {
            self.active = now;
        }
        (consumed, event)
    }

    fn step(&mut self, now: Instant, input: &[u8], body: &mut Vec<u8>) -> (usize, Step) {
        match self.state {
            State::Command => self.command(now, input),
            State::Swallow { .. } => self.swallow(input),
            State::Message(_) => self.message(now, input, body),
            State::Discard(_) => self.discard(now, input),
            State::StartTls if !input.is_empty() => {
                self.state = State::Closed(CloseReason::Violation(Violation::Injection));
                (0, ControlFlow::Continue(()))
            }
            State::Closed(_) => (0, ControlFlow::Break(Some(Event::Close))),
            State::Connected
            | State::Recipients(_)
            | State::AwaitData
            | State::AwaitReply
            | State::StartTls => (0, ControlFlow::Break(None)),
        }
    }

    /// What is to be written to the client. The driver takes it, capacity and all.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// One reply for each recipient of [`Event::Recipients`], in that order; what is missing is 451. Class 2 accepts.
    /// Returns how many of them were said: where the refusals reach the limit, 421 stands for the rest.
    pub fn answer_recipients(&mut self, now: Instant, replies: Vec<Reply>) -> usize {
        let State::Recipients(count) = self.state else {
            return 0;
        };
        self.active = now;
        self.state = State::Command;
        let mut replies = replies.into_iter();
        for said in 0..count {
            let reply =
                replies.next().unwrap_or_else(|| Reply::new(451, (4, 3, 0), "no answer for this recipient"));
            if reply.is_positive() {
                if let Some(transaction) = &mut self.transaction {
                    transaction.accepted = transaction.accepted.saturating_add(1);
                }
            } else if !self.refuse_recipient(reply.class()) {
                return said as usize;
            }
            self.write_reply(Verb::Rcpt, &reply);
        }
        count as usize
    }

    /// Puts `(label)` behind the 421 that might end the session inside this transaction.
    pub fn label_transaction(&mut self, label: &str) {
        if let Some(transaction) = &mut self.transaction {
            transaction.label = Some(label.into());
        }
    }

    /// Counts a refused recipient; false when it is one too many and 421 was written instead. A 4xx is no error,
    /// until a transaction has had more refusals than recipients are allowed.
    fn refuse_recipient(&mut self, class: u8) -> bool {
        let allowed = self.config.limits.recipients;
        let excess = self.transaction.as_mut().is_some_and(|transaction| {
            transaction.refused = transaction.refused.saturating_add(1);
            transaction.refused > allowed
        });
        if (class == 5 || excess) && !self.count_error() {
            self.close(Verb::Rcpt, Violation::TooManyErrors);
            return false;
        }
        true
    }

    /// Answers DATA with 354: the message follows. A chunk is answered when it was read.
    pub fn start_data(&mut self, now: Instant) {
        if !matches!(self.state, State::AwaitData) {
            return;
        }
        self.active = now;
        let chunk = self.chunk();
        if chunk.is_none() {
            self.counts.record(Verb::Data, 3);
            self.output.extend_from_slice(b"354 end data with <CR><LF>.<CR><LF>\r\n");
        }
        self.state = State::Message(Box::new(Message::new(&self.config, now, chunk)));
    }

    fn chunk(&self) -> Option<Chunk> {
        self.transaction.as_deref().and_then(|transaction| transaction.chunk)
    }

    /// Whether it waits for the next chunk of a message, or for what the client says instead.
    pub fn is_between_chunks(&self) -> bool {
        self.message_between_chunks().is_some()
    }

    /// The driver begins to wait for more of the message. The time that it spent on what came before, waiting for
    /// the upstream to take it, is not the client's.
    pub fn wait_for_message(&mut self, now: Instant) {
        if matches!(self.state, State::Message(_)) {
            self.active = now;
        }
    }

    /// Answers DATA with a refusal, which ends the transaction; the same for a chunk, when it was read.
    pub fn refuse_data(&mut self, now: Instant, reply: &Reply) {
        if matches!(self.state, State::AwaitData) {
            match self.end_transaction(now, reply) {
                None => self.write_reply(Verb::Data, reply),
                Some(chunk) => self.refuse_chunk(chunk, reply),
            }
        }
    }

    /// Answers the message, which ends the transaction.
    pub fn finish_message(&mut self, now: Instant, reply: &Reply) {
        if matches!(self.state, State::AwaitReply) {
            let chunk = self.end_transaction(now, reply);
            self.write_reply(if chunk.is_some() { Verb::Bdat } else { Verb::Data }, reply);
            if let Some(chunk) = chunk.filter(|_| !reply.is_positive()) {
                self.chunk_failed(chunk, false);
            }
        }
    }

    /// Returns the chunk that this was the end of.
    fn end_transaction(&mut self, now: Instant, reply: &Reply) -> Option<Chunk> {
        let chunk = self.chunk();
        self.active = now;
        self.transaction = None;
        self.state = State::Command;
        match reply.class() {
            2 => {
                self.errors = 0;
                self.idle_commands = 0;
            }
            5 => self.errors = self.errors.saturating_add(1),
            _ => {}
        }
        chunk
    }

    /// The handshake is done: the session begins anew, without HELO (RFC 3207 section 4.2).
    pub fn tls_established(&mut self, now: Instant) {
        if matches!(self.state, State::StartTls) {
            self.active = now;
            self.tls = Tls::Active;
            self.helo = None;
            self.esmtp = false;
            self.state = State::Command;
        }
    }

    /// When [`Session::handle_timeout`] is due. While the driver owes an answer, its own time limits come first.
    pub fn deadline(&self) -> Instant {
        let limits = &self.config.limits;
        match &self.state {
            State::Message(message) => {
                let idle = if message.spoiled.is_some() { limits.idle_spoiled } else { limits.idle_data };
                (self.active + idle).min(message.started + limits.message_time)
            }
            State::Discard(_) => (self.active + limits.idle_spoiled).min(self.oldest()),
            State::Command | State::Swallow { .. } if self.is_between_chunks() => {
                let started = self.message_between_chunks().map_or(self.active, |message| message.started);
                (self.active + limits.idle_data).min(started + limits.message_time)
            }
            State::Recipients(_) | State::AwaitData | State::AwaitReply => self.active + limits.session_age,
            State::Connected
            | State::Command
            | State::Swallow { .. }
            | State::StartTls
            | State::Closed(_) => (self.active + limits.idle_command).min(self.oldest()),
        }
    }

    fn message_between_chunks(&self) -> Option<&Message> {
        self.transaction.as_deref().and_then(|transaction| transaction.message.as_deref())
    }

    /// The deadline is over: writes 421 (nothing in a handshake).
    pub fn handle_timeout(&mut self, now: Instant) -> Event {
        let violation = if matches!(self.state, State::Command) && now >= self.oldest() {
            Violation::SessionTooOld
        } else {
            Violation::Idle
        };
        match self.state {
            State::Closed(_) => {}
            State::StartTls => self.state = State::Closed(CloseReason::Violation(violation)),
            _ => self.close_with(CloseReason::Violation(violation), violation.as_str()),
        }
        Event::Close
    }

    /// The process goes down: between transactions 421 4.3.2 is written now and the session is closed (true),
    /// otherwise after the transaction (false).
    pub fn shut_down(&mut self) -> bool {
        self.shutting_down = true;
        if self.is_idle() || matches!(self.state, State::Connected) {
            self.close_for_shutdown();
        }
        matches!(self.state, State::Closed(_))
    }

    fn close_for_shutdown(&mut self) {
        self.close_with(CloseReason::ShutDown, "421 4.3.2 going down, connect again");
    }

    /// The transaction from its MAIL on.
    pub fn envelope(&self) -> Option<&Transaction> {
        self.transaction.as_deref()
    }

    /// The argument of the last EHLO or HELO: printable ASCII without blanks, otherwise unchecked.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_deref()
    }

    /// Whether the client said EHLO.
    pub fn esmtp(&self) -> bool {
        self.esmtp
    }

    pub fn tls_active(&self) -> bool {
        self.tls == Tls::Active
    }

    /// Whether it is between transactions and waits for the client.
    pub fn is_idle(&self) -> bool {
        self.transaction.is_none() && matches!(self.state, State::Command | State::Swallow { .. })
    }

    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.state {
            State::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// What was answered since the last call, for the metrics. Take it after each event.
    pub fn take_commands(&mut self) -> CommandCounts {
        std::mem::take(&mut self.counts)
    }

    /// From when on the session is too old: a transaction gives it as much time again.
    fn oldest(&self) -> Instant {
        let age = self.config.limits.session_age;
        self.started + if self.transaction.is_some() { age * 2 } else { age }
    }

    /// False when the limit is reached: the reply is then 421.
    fn count_error(&mut self) -> bool {
        let room = self.errors < self.config.limits.errors;
        self.errors = self.errors.saturating_add(1);
        room
    }

    fn close(&mut self, verb: Verb, violation: Violation) {
        self.counts.record(verb, violation.class());
        self.close_with(CloseReason::Violation(violation), violation.as_str());
    }

    fn close_with(&mut self, reason: CloseReason, line: &str) {
        let label = self.transaction.as_mut().and_then(|transaction| transaction.label.take());
        match label.filter(|_| reason != CloseReason::Quit) {
            Some(label) => self.write(&[line, " (", &label, ")\r\n"]),
            None => self.write(&[line, "\r\n"]),
        }
        self.state = State::Closed(reason);
    }

    fn write_reply(&mut self, verb: Verb, reply: &Reply) {
        self.counts.record(verb, reply.class());
        reply.write_to(&mut self.output);
    }

    fn write(&mut self, parts: &[&str]) {
        for part in parts {
            self.output.extend_from_slice(part.as_bytes());
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("helo", &self.helo)
            .field("transaction", &self.transaction)
            .field("closed", &self.close_reason())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
