//! Message data (RFC 5321 section 4.5.2): dots unstuffed on the way in, stuffed again on the way out; or, in chunks
//! (RFC 3030), counted octets on the way in, where dots mean nothing.
//!
//! A message ends at CRLF `.` CRLF and nowhere else; the position after 354 is a line start, so an empty message is
//! `.` CRLF alone. What servers behind us might take for a line end (bare LF, bare CR: CVE-2023-51764, -51765,
//! -51766) either spoils the message or is made harmless, so no two parsers can disagree about where it ends.

use memchr::{memchr_iter, memchr3};

/// What happens to a message with bare LF, bare CR or NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BareNewline {
    /// 550 5.5.2.
    #[default]
    Reject,
    /// A bare LF becomes CRLF, a bare CR a space (it is mostly part of a CR CR LF; a line end in its place would cut
    /// headers in two). A line end made so never counts as one where the end of the message is looked for: `LF . LF`,
    /// `LF . CRLF` and `CR . CRLF` are text, and a dot after such a line end is no stuffing. A NUL becomes a space too:
    /// dropped, it would join what it stood between.
    Normalize,
}

/// Takes the client's bytes after 354, or those of its chunks, and gives the message.
///
/// The message of `CRLF`-ended lines has the line end before the final dot. The same bytes give the same message and
/// the same faults however they are cut, into chunks too: a CR that ends one chunk and a LF that begins the next are a
/// CRLF.
#[derive(Clone, Debug)]
pub struct DataReader {
    state: ReaderState,
    newline: BareNewline,
    faults: bool,
    /// The message comes in chunks: a dot is a dot, and [`DataReader::end`] says where it ends.
    chunks: bool,
    /// The last byte given ends a line (or none was given).
    line_done: bool,
}

/// How far a call of [`DataReader::read`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All bytes were taken, the message goes on.
    More,
    /// The last byte taken shows a fault. Reading may go on.
    Fault(DataFault),
    /// The last byte taken ends the message.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFault {
    BareCr,
    BareLf,
    Nul,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderState {
    /// After 354 or CRLF.
    LineStart,
    /// A dot at a line start, not passed on.
    Dot,
    /// The same and a CR, not passed on.
    DotCr,
    Text,
    /// A CR in the text, not passed on.
    Cr,
    End,
}

/// Takes a message, gives what goes to a server after its 354.
///
/// Assumes what [`DataReader`] guarantees: CR and LF come in pairs. Then reading gives the same message again,
/// except that a last line without CRLF gets one.
#[derive(Clone, Debug)]
pub struct DataWriter {
    line_start: bool,
}

// === impl DataReader ===

impl DataReader {
    pub fn new(newline: BareNewline) -> Self {
        Self { state: ReaderState::LineStart, newline, faults: true, chunks: false, line_done: true }
    }

    /// For a message in chunks (RFC 3030).
    pub fn of_chunks(newline: BareNewline) -> Self {
        Self { chunks: true, ..Self::new(newline) }
    }

    /// The last chunk of a message was read whole: appends what was held back, and a CRLF where the last line has
    /// none (RFC 5321 section 4.1.1.4: a message ends in CRLF); three bytes at most.
    pub fn end(&mut self, message: &mut Vec<u8>) -> Result<(), DataFault> {
        let held = self.state == ReaderState::Cr;
        self.state = ReaderState::End;
        let fault = if held {
            self.line_done = false;
            self.bare_cr(message).filter(|_| self.faults)
        } else {
            None
        };
        if !std::mem::replace(&mut self.line_done, true) {
            message.extend_from_slice(b"\r\n");
        }
        fault.map_or(Ok(()), Err)
    }

    /// From now on faults are passed over: the message is spoiled anyway, only its end matters.
    pub fn ignore_faults(&mut self) {
        self.faults = false;
    }

    /// Takes from `input` and appends to `message` (at most two bytes for each one taken). Returns how many it took:
    /// all with `Progress::More`, up to the point in question otherwise.
    pub fn read(&mut self, input: &[u8], message: &mut Vec<u8>) -> (usize, Progress) {
        let before = message.len();
        let result = self.decode(input, message);
        if let Some(last) = message.get(before..).and_then(<[u8]>::last) {
            self.line_done = *last == b'\n';
        }
        result
    }

    fn decode(&mut self, input: &[u8], message: &mut Vec<u8>) -> (usize, Progress) {
        if !input.is_empty() {
            message.reserve(input.len() + 2);
        }
        let mut at = 0;
        while let Some((&byte, _)) = input.get(at..).and_then(<[u8]>::split_first) {
            let fault = match (self.state, byte) {
                (ReaderState::LineStart, b'.') if !self.chunks => {
                    self.state = ReaderState::Dot;
                    at += 1;
                    None
                }
                (ReaderState::Dot, b'\r') => {
                    self.state = ReaderState::DotCr;
                    at += 1;
                    None
                }
                (ReaderState::DotCr, b'\n') => {
                    self.state = ReaderState::End;
                    return (at + 1, Progress::End);
                }
                (ReaderState::Cr, b'\n') => {
                    message.extend_from_slice(b"\r\n");
                    self.state = ReaderState::LineStart;
                    at += 1;
                    None
                }
                // The CR that was held back is bare; this byte is looked at again.
                (ReaderState::Cr | ReaderState::DotCr, _) => {
                    self.state = ReaderState::Text;
                    self.bare_cr(message)
                }
                (ReaderState::LineStart | ReaderState::Dot | ReaderState::Text, _) => {
                    self.state = ReaderState::Text;
                    let (taken, fault) = self.text(&input[at..], message);
                    at += taken;
                    fault
                }
                (ReaderState::End, _) => return (at, Progress::End),
            };
            if let Some(fault) = fault.filter(|_| self.faults) {
                return (at, Progress::Fault(fault));
            }
        }
        (at, if self.state == ReaderState::End { Progress::End } else { Progress::More })
    }

    /// Copies text up to where the state changes. Whole lines go in one piece as long as none begins with a dot.
    fn text(&mut self, input: &[u8], message: &mut Vec<u8>) -> (usize, Option<DataFault>) {
        let mut from = 0;
        while let Some(found) = memchr3(b'\r', b'\n', 0, &input[from..]) {
            let at = from + found;
            let (text, rest) = input.split_at(at);
            match rest {
                [b'\r', b'\n', next, ..] if *next != b'.' => from = at + 2,
                [b'\r', b'\n', ..] => {
                    message.extend_from_slice(&input[..at + 2]);
                    self.state = ReaderState::LineStart;
                    return (at + 2, None);
                }
                [b'\r'] => {
                    message.extend_from_slice(text);
                    self.state = ReaderState::Cr;
                    return (at + 1, None);
                }
                [b'\r', ..] => {
                    message.extend_from_slice(text);
                    return (at + 1, self.bare_cr(message));
                }
                [b'\n', ..] => {
                    message.extend_from_slice(text);
                    return (at + 1, self.bare_lf(message));
                }
                _ => {
                    message.extend_from_slice(text);
                    return (at + 1, self.nul(message));
                }
            }
        }
        message.extend_from_slice(input);
        (input.len(), None)
    }

    fn bare_cr(&self, message: &mut Vec<u8>) -> Option<DataFault> {
        match self.newline {
            BareNewline::Reject => {
                message.push(b'\r');
                Some(DataFault::BareCr)
            }
            BareNewline::Normalize => {
                message.push(b' ');
                None
            }
        }
    }

    fn nul(&self, message: &mut Vec<u8>) -> Option<DataFault> {
        match self.newline {
            BareNewline::Reject => {
                message.push(0);
                Some(DataFault::Nul)
            }
            BareNewline::Normalize => {
                message.push(b' ');
                None
            }
        }
    }

    /// The state stays `Text`: this is no line start for the end of the message.
    fn bare_lf(&self, message: &mut Vec<u8>) -> Option<DataFault> {
        match self.newline {
            BareNewline::Reject => {
                message.push(b'\n');
                Some(DataFault::BareLf)
            }
            BareNewline::Normalize => {
                message.extend_from_slice(b"\r\n");
                None
            }
        }
    }
}

// === impl DataWriter ===

impl DataWriter {
    pub fn new() -> Self {
        Self { line_start: true }
    }

    /// Appends the stuffed form of the message's next bytes.
    pub fn write(&mut self, message: &[u8], output: &mut Vec<u8>) {
        let Some(last) = message.last() else {
            return;
        };
        output.reserve(message.len() + message.len() / 64 + 1);
        if self.line_start && message.starts_with(b".") {
            output.push(b'.');
        }
        let mut from = 0;
        for lf in memchr_iter(b'\n', message) {
            if message.get(lf + 1) == Some(&b'.') {
                output.extend_from_slice(&message[from..=lf]);
                output.push(b'.');
                from = lf + 1;
            }
        }
        output.extend_from_slice(&message[from..]);
        self.line_start = *last == b'\n';
    }

    /// Appends the end of the message, with a CRLF before it where the last line lacks one.
    pub fn end(self, output: &mut Vec<u8>) {
        output.extend_from_slice(if self.line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

impl Default for DataWriter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
