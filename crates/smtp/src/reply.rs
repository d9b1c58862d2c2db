//! Replies (RFC 5321 section 4.2) with enhanced status codes (RFC 2034, RFC 3463).

mod parser;

use std::fmt;
use std::io::Write;

pub use parser::{ReplyFault, ReplyParser};

use crate::limits;

/// A reply as it is written or was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 559.
    pub code: u16,
    /// Written at the front of every line (RFC 2034 section 3).
    pub enhanced: Option<(u8, u16, u16)>,
    /// The texts, at least one, without code, enhanced code and line end.
    pub lines: Vec<String>,
}

// === impl Reply ===

impl Reply {
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }

    /// A reply without an enhanced code: banner, EHLO, 354 (RFC 2034 section 4).
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self { code, enhanced: None, lines: vec![text.into()] }
    }

    /// Reads a line like `550 5.1.1 no such user`. A line without a code is the text of a 451.
    pub fn from_line(line: &str) -> Self {
        let Some((code, text)) =
            line.split_once(' ').and_then(|(code, text)| Some((code.parse().ok()?, text)))
        else {
            return Self::plain(451, line);
        };
        match parser::split_enhanced(code, text) {
            Some((enhanced, text)) => Self::new(code, enhanced, text),
            None => Self::plain(code, text),
        }
    }

    /// The first digit: 2 done, 3 go on, 4 not now, 5 never.
    pub fn class(&self) -> u8 {
        (self.code / 100).clamp(2, 5) as u8
    }

    pub fn is_positive(&self) -> bool {
        self.class() == 2
    }

    /// The first line's text.
    pub fn text(&self) -> &str {
        self.lines.first().map_or("", String::as_str)
    }

    /// Appends the reply with its line ends. Whatever is not printable ASCII in a text becomes `?`, and a text is
    /// cut where its line would be longer than RFC 5321 section 4.5.3.1.5 allows: a reply can't smuggle another.
    pub fn write_to(&self, output: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        for (i, text) in self.lines.iter().enumerate() {
            self.write_line(text, if i == last { b' ' } else { b'-' }, output);
        }
        if self.lines.is_empty() {
            self.write_line("", b' ', output);
        }
    }

    fn write_line(&self, text: &str, separator: u8, output: &mut Vec<u8>) {
        let start = output.len();
        // Writing to a Vec does not fail.
        let _ = write!(output, "{:03}", self.code.clamp(200, 599));
        output.push(separator);
        if let Some((class, subject, detail)) = self.enhanced {
            let _ = write!(output, "{class}.{subject}.{detail} ");
        }
        let room = (limits::REPLY_LINE_OUT - 2).saturating_sub(output.len() - start);
        output.extend(
            text.bytes().take(room).map(|byte| if matches!(byte, b' '..=b'~') { byte } else { b'?' }),
        );
        output.extend_from_slice(b"\r\n");
    }
}

impl fmt::Display for Reply {
    /// On one line, as for a log: `550 5.1.1 no such user / try later`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        for (i, line) in self.lines.iter().enumerate() {
            write!(f, "{}{line}", if i == 0 { " " } else { " / " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
