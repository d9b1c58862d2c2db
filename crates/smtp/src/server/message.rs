//! The message between 354 and the final dot.

use std::ops::ControlFlow;
use std::time::Instant;

use super::{Event, Session, SessionConfig, State, Step};
use crate::data::{DataFault, DataReader, Progress};
use crate::header::{HeaderFault, HeaderScanner};
use crate::{Limits, Verb, Violation, limits};

pub(super) struct Message {
    pub(super) started: Instant,
    reader: DataReader,
    header: HeaderScanner,
    /// Octets as they came.
    raw: u64,
    /// Octets of the message, as SIZE counts them (RFC 1870 section 5).
    size: u64,
    pub(super) spoiled: Option<Violation>,
}

// === impl Message ===

impl Message {
    pub(super) fn new(config: &SessionConfig, now: Instant) -> Self {
        let limits = &config.limits;
        Self {
            started: now,
            reader: DataReader::new(config.bare_newline),
            header: HeaderScanner::new(limits.header_size, limits.received_fields),
            raw: 0,
            size: 0,
            spoiled: None,
        }
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
        let new = body.get(start..).unwrap_or_default();
        let mut found = Ok(());
        if self.spoiled.is_none() {
            found = self.inspect(new, limits);
            if let (Ok(()), Progress::Fault(fault)) = (found, progress) {
                found = Err(match fault {
                    DataFault::BareCr | DataFault::BareLf => Violation::BareNewline,
                    DataFault::Nul => Violation::NulByte,
                });
            }
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
        (taken, progress, found)
    }
}

// === impl Session ===

impl Session {
    pub(super) fn message(&mut self, input: &[u8], body: &mut Vec<u8>) -> (usize, Step) {
        let limits = &self.config.limits;
        let State::Message(message) = &mut self.state else {
            return (0, ControlFlow::Continue(()));
        };
        let bound = limits.message_size.saturating_mul(limits::SWALLOW_FACTOR).max(limits::SWALLOW_FLOOR);
        let left = usize::try_from(bound.saturating_sub(message.raw)).unwrap_or(usize::MAX);
        if left == 0 {
            self.close(Verb::Data, Violation::EndlessMessage);
            return (0, ControlFlow::Continue(()));
        }
        let before = body.len();
        let (taken, progress, found) = message.take(input.get(..left).unwrap_or(input), body, limits);
        let event = if progress == Progress::End {
            let result = message.spoiled.map_or(Ok(()), Err);
            Some(Event::EndOfMessage { result, size: message.size })
        } else if let Err(violation) = found {
            Some(Event::MessageSpoiled(violation))
        } else if body.len() > before {
            Some(Event::Body)
        } else if taken < input.len() {
            return (taken, ControlFlow::Continue(()));
        } else {
            None
        };
        if progress == Progress::End {
            self.state = State::AwaitReply;
        }
        (taken, ControlFlow::Break(event))
    }
}
