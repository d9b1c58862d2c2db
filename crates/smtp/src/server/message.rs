//! The message: between 354 and the final dot, or in chunks (RFC 3030).
//!
//! ```text
//!             BDAT n                     start_data
//!   Command ----------> AwaitData ------------------> Message   n octets, then 250 and Command again;
//!      |  ^  after the first: at once ------------------^ |      after the last: AwaitReply
//!      |  |                    | refuse_data              | spoiled: AwaitReply after its n octets
//!      |  +-- its answer -- Discard <---------------------+
//!      +-- BDAT out of order --^   n octets are dropped
//! ```

use std::ops::ControlFlow;
use std::time::Instant;

use super::{Event, Session, SessionConfig, State, Step};
use crate::data::{DataFault, DataReader, Progress};
use crate::header::{HeaderFault, HeaderScanner};
use crate::{Chunk, Limits, Reply, Verb, Violation, limits};

#[derive(Debug)]
pub(super) struct Message {
    pub(super) started: Instant,
    reader: DataReader,
    header: HeaderScanner,
    /// What is still to come of the present chunk; `None` if a dot ends the message.
    chunk_left: Option<u64>,
    /// Octets as they came.
    raw: u64,
    /// Octets of the message, as SIZE counts them (RFC 1870 section 5).
    size: u64,
    pub(super) spoiled: Option<Violation>,
}

/// A chunk that is of no use: its octets are dropped, then it is answered (RFC 3030 section 2).
pub(super) struct Discard {
    left: u64,
    chunk: Chunk,
    answer: Answer,
}

enum Answer {
    Violation(Violation),
    /// The driver's, by [`Session::refuse_data`].
    Refusal(Reply),
}

const GO_ON: Step = ControlFlow::Continue(());
/// The least that a chunk behind a failed one takes of what is forgiven.
const LEAST_STRAY: u64 = 1024;

// === impl Message ===

impl Message {
    pub(super) fn new(config: &SessionConfig, now: Instant, chunk: Option<Chunk>) -> Self {
        let limits = &config.limits;
        let reader = match chunk {
            None => DataReader::new(config.bare_newline),
            Some(_) => DataReader::of_chunks(config.bare_newline),
        };
        Self {
            started: now,
            reader,
            header: HeaderScanner::new(limits.header_size, limits.received_fields),
            chunk_left: chunk.map(|chunk| chunk.size),
            raw: 0,
            size: 0,
            spoiled: None,
        }
    }

    fn verb(&self) -> Verb {
        if self.chunk_left.is_some() { Verb::Bdat } else { Verb::Data }
    }

    /// Looks at the next bytes of the message. The first fault in the order of the bytes counts.
    fn inspect(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Violation> {
        let room = usize::try_from(limits.message_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let (allowed, over) = bytes.split_at_checked(room).unwrap_or((bytes, b""));
        self.size += bytes.len() as u64;
        self.header.scan(allowed).map_err(|fault| match fault {
            HeaderFault::TooLarge => Violation::HeaderTooLarge,
            HeaderFault::TooManyReceived => Violation::MailLoop,
        })?;
        if over.is_empty() { Ok(()) } else { Err(Violation::MessageTooLarge) }
    }

    /// Takes bytes up to a fault or the end at most, and drops what is of no use any more.
    fn take(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limits: &Limits,
    ) -> (usize, Progress, Result<(), Violation>) {
        let start = body.len();
        let (taken, progress) = self.reader.read(input, body);
        self.raw += taken as u64;
        self.chunk_left = self.chunk_left.map(|left| left.saturating_sub(taken as u64));
        let fault = match progress {
            Progress::Fault(fault) => Err(fault),
            Progress::More | Progress::End => Ok(()),
        };
        (taken, progress, self.judge(start, fault, body, limits))
    }

    /// The last chunk was read whole.
    fn end(&mut self, body: &mut Vec<u8>, limits: &Limits) {
        let start = body.len();
        let fault = self.reader.end(body);
        // it is told with the end of the message
        let _ = self.judge(start, fault, body, limits);
    }

    /// What `body` holds from `start` on was read up to a fault, if there is one.
    fn judge(
        &mut self,
        start: usize,
        fault: Result<(), DataFault>,
        body: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(), Violation> {
        let new = body.get(start..).unwrap_or_default();
        let mut found = Ok(());
        if self.spoiled.is_none() {
            found = self.inspect(new, limits).and(fault.map_err(|fault| match fault {
                DataFault::BareCr | DataFault::BareLf => Violation::BareNewline,
                DataFault::Nul => Violation::NulByte,
            }));
        } else {
            self.size += new.len() as u64;
        }
        if let Err(violation) = found {
            self.spoiled = Some(violation);
            self.reader.ignore_faults();
        }
        if self.spoiled.is_some() {
            body.truncate(start);
        }
        found
    }
}

// === impl Session ===

impl Session {
    pub(super) fn message(&mut self, now: Instant, input: &[u8], body: &mut Vec<u8>) -> (usize, Step) {
        let bound = self.swallow_bound();
        let limits = &self.config.limits;
        let State::Message(message) = &mut self.state else {
            return (0, GO_ON);
        };
        if message.chunk_left == Some(0) {
            return (0, self.end_chunk(now, body));
        }
        let left = bound.saturating_sub(message.raw);
        if left == 0 {
            let verb = message.verb();
            self.close(verb, Violation::EndlessMessage);
            return (0, GO_ON);
        }
        let left = usize::try_from(left.min(message.chunk_left.unwrap_or(u64::MAX))).unwrap_or(usize::MAX);
        let before = body.len();
        let (taken, progress, found) = message.take(input.get(..left).unwrap_or(input), body, limits);
        let event = if progress == Progress::End {
            let result = message.spoiled.map_or(Ok(()), Err);
            Some(Event::EndOfMessage { result, size: message.size })
        } else if let Err(violation) = found {
            Some(Event::MessageSpoiled(violation))
        } else if body.len() > before {
            Some(Event::Body)
        } else if taken < input.len() || message.chunk_left == Some(0) {
            return (taken, GO_ON);
        } else {
            None
        };
        if progress == Progress::End {
            self.state = State::AwaitReply;
        }
        (taken, ControlFlow::Break(event))
    }

    /// All octets of a chunk were taken, and what they gave was passed on.
    fn end_chunk(&mut self, now: Instant, body: &mut Vec<u8>) -> Step {
        let State::Message(mut message) = std::mem::replace(&mut self.state, State::AwaitReply) else {
            return GO_ON;
        };
        let Some(transaction) = &mut self.transaction else {
            return GO_ON;
        };
        let last = transaction.chunk.is_some_and(|chunk| chunk.last);
        if last {
            message.end(body, &self.config.limits);
        }
        if last || message.spoiled.is_some() {
            let result = message.spoiled.map_or(Ok(()), Err);
            return ControlFlow::Break(Some(Event::EndOfMessage { result, size: message.size }));
        }
        transaction.message = Some(message);
        self.active = now;
        self.state = State::Command;
        self.counts.record(Verb::Bdat, 2);
        self.write(&["250 2.0.0 chunk OK\r\n"]);
        GO_ON
    }

    /// BDAT. Wherever it comes, its octets are not commands.
    pub(super) fn bdat(&mut self, chunk: Chunk) -> Step {
        let refusal = match self.transaction.as_deref_mut() {
            None => Violation::MailFirst,
            Some(transaction) => {
                if let Some(mut message) = transaction.message.take() {
                    transaction.chunk = Some(chunk);
                    message.chunk_left = Some(chunk.size);
                    self.state = State::Message(message);
                    return GO_ON;
                }
                match transaction.may_bring_message() {
                    Ok(()) => {
                        transaction.chunk = Some(chunk);
                        self.state = State::AwaitData;
                        return ControlFlow::Break(Some(Event::Data));
                    }
                    Err(violation) => violation,
                }
            }
        };
        if chunk.size > self.swallow_bound() {
            self.close(Verb::Bdat, Violation::EndlessMessage);
            return GO_ON;
        }
        self.start_discarding(chunk, Answer::Violation(refusal));
        GO_ON
    }

    /// The message's first chunk was refused: it is answered when it was read.
    pub(super) fn refuse_chunk(&mut self, chunk: Chunk, reply: &Reply) {
        self.start_discarding(chunk, Answer::Refusal(reply.clone()));
    }

    fn start_discarding(&mut self, chunk: Chunk, answer: Answer) {
        self.state = State::Discard(Box::new(Discard { left: chunk.size, chunk, answer }));
    }

    pub(super) fn discard(&mut self, now: Instant, input: &[u8]) -> (usize, Step) {
        let bound = self.swallow_bound();
        let State::Discard(discard) = &mut self.state else {
            return (0, GO_ON);
        };
        if discard.left > bound {
            self.close(Verb::Bdat, Violation::EndlessMessage);
            return (0, GO_ON);
        }
        let taken = usize::try_from(discard.left).unwrap_or(usize::MAX).min(input.len());
        discard.left -= taken as u64;
        if discard.left > 0 {
            return (taken, ControlFlow::Break(None));
        }
        let State::Discard(discard) = std::mem::replace(&mut self.state, State::Command) else {
            return (taken, GO_ON);
        };
        let Discard { chunk, answer, .. } = *discard;
        self.active = now;
        let forgiven = self.forgive(chunk);
        match answer {
            Answer::Violation(violation) => self.fail_unless(forgiven, Verb::Bdat, violation),
            Answer::Refusal(reply) => self.write_reply(Verb::Bdat, &reply),
        }
        self.chunk_failed(chunk, forgiven);
        (taken, GO_ON)
    }

    /// A client that does not wait for answers has sent the chunks behind one that failed already (RFC 3030
    /// section 2): that they fail too is no error of its own, up to as much as a spoiled message may bring.
    fn forgive(&mut self, chunk: Chunk) -> bool {
        match self.stray.checked_sub(chunk.size.max(LEAST_STRAY)) {
            Some(left) => {
                self.stray = left;
                true
            }
            None => {
                self.stray = 0;
                false
            }
        }
    }

    /// This chunk was answered with a refusal.
    pub(super) fn chunk_failed(&mut self, chunk: Chunk, forgiven: bool) {
        if chunk.last {
            self.stray = 0;
        } else if !forgiven {
            self.stray = self.swallow_bound();
        }
    }

    /// How much of a message is read that can't be accepted.
    fn swallow_bound(&self) -> u64 {
        self.config.limits.message_size.saturating_mul(limits::SWALLOW_FACTOR).max(limits::SWALLOW_FLOOR)
    }
}
