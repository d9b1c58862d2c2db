//! Reading an upstream's replies, byte by byte if need be, and never more of them than the limits allow.

use thiserror::Error;

use super::Reply;
use crate::limits;

/// Collects one reply at a time. It holds heap memory only while a reply is incomplete.
///
/// Strict: a line ends in CRLF, starts with a code of RFC 5321 section 4.2 and then a space, a hyphen or its end;
/// all lines of a reply have the same code. Text beyond printable ASCII is shown as `?`.
/// After a fault every further call is the same fault.
#[derive(Debug, Default)]
pub struct ReplyParser {
    line: Vec<u8>,
    lines: Vec<String>,
    /// Of the reply's first line.
    code: u16,
    enhanced: Option<(u8, u16, u16)>,
    size: usize,
    fault: Option<ReplyFault>,
}

/// Why what an upstream said is no reply.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReplyFault {
    #[error("a reply line without a code")]
    NoCode,
    #[error("a reply of several codes")]
    CodesDiffer,
    #[error("a reply line with a bare CR, a bare LF or a NUL")]
    BadByte,
    #[error("a reply line longer than {} octets", limits::REPLY_LINE_IN)]
    LineTooLong,
    #[error("a reply of more than {} lines or {} octets", limits::REPLY_LINES, limits::REPLY_SIZE)]
    TooLong,
}

/// Splits `5.1.1 text` if the class fits the code.
pub(super) fn split_enhanced(code: u16, text: &str) -> Option<((u8, u16, u16), &str)> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut parts = word.split('.');
    let class = number(parts.next()?)?;
    let subject = number(parts.next()?)?;
    let detail = number(parts.next()?)?;
    let fits = parts.next().is_none() && matches!(class, 2 | 4 | 5) && class == code / 100;
    fits.then_some(((class as u8, subject, detail), rest))
}

/// One to three digits, without leading zeros (RFC 3463 section 2).
fn number(text: &str) -> Option<u16> {
    let plain = (1..=3).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

// === impl ReplyParser ===

impl ReplyParser {
    /// Takes bytes up to the end of one reply at most. Returns how many it took, and the reply once it is complete.
    pub fn receive(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let result = self.take_lines(input);
        if let Err(fault) = result {
            *self = Self { fault: Some(fault), ..Self::default() };
        }
        result
    }

    /// Whether a reply has begun and not ended.
    pub fn is_partial(&self) -> bool {
        !self.line.is_empty() || !self.lines.is_empty()
    }

    fn take_lines(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyFault> {
        let mut consumed = 0;
        while let Some(rest) = input.get(consumed..).filter(|rest| !rest.is_empty()) {
            let (piece, whole) = match memchr::memchr(b'\n', rest) {
                Some(lf) => (&rest[..=lf], true),
                None => (rest, false),
            };
            if self.line.len() + piece.len() > limits::REPLY_LINE_IN {
                return Err(ReplyFault::LineTooLong);
            }
            if self.size + self.line.len() + piece.len() > limits::REPLY_SIZE {
                return Err(ReplyFault::TooLong);
            }
            consumed += piece.len();
            if !whole {
                self.line.extend_from_slice(piece);
                continue;
            }
            let reply = if self.line.is_empty() {
                self.take_line(piece)?
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                self.take_line(&line)?
            };
            if reply.is_some() {
                return Ok((consumed, reply));
            }
        }
        Ok((consumed, None))
    }

    /// Takes a line that ends in LF.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyFault> {
        let text = line.strip_suffix(b"\r\n").ok_or(ReplyFault::BadByte)?;
        if memchr::memchr2(b'\r', 0, text).is_some() {
            return Err(ReplyFault::BadByte);
        }
        let (code, last, text) = split_line(text).ok_or(ReplyFault::NoCode)?;
        let text: String = text
            .iter()
            .map(|&byte| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' })
            .collect();

        let enhanced = split_enhanced(code, &text);
        if self.lines.is_empty() {
            self.code = code;
            self.enhanced = enhanced.map(|(enhanced, _)| enhanced);
        } else if code != self.code {
            return Err(ReplyFault::CodesDiffer);
        }
        let text = match enhanced {
            Some((enhanced, rest)) if self.enhanced == Some(enhanced) => rest.to_owned(),
            _ => text,
        };
        if self.lines.len() == limits::REPLY_LINES {
            return Err(ReplyFault::TooLong);
        }
        self.lines.push(text);
        self.size += line.len();
        if !last {
            return Ok(None);
        }
        let Self { lines, code, enhanced, .. } = std::mem::take(self);
        Ok(Some(Reply { code, enhanced, lines }))
    }
}

/// Code, whether it is the reply's last line, and text.
fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_first_chunk::<3>()?;
    let [first @ b'2'..=b'5', second @ b'0'..=b'5', third @ b'0'..=b'9'] = *code else {
        return None;
    };
    let digit = |byte: u8| u16::from(byte - b'0');
    let code = digit(first) * 100 + digit(second) * 10 + digit(third);
    match rest {
        [] => Some((code, true, rest)),
        [b' ', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}
