//! Paths (RFC 5321 section 4.1.2) with the letters beyond ASCII of RFC 6531 section 3.3, strict and lossless. Whether
//! a path may go beyond ASCII, the parameters of MAIL say, so that is for the caller to check.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::limits;

/// A mailbox exactly as it was written, without its angle brackets and its source route.
///
/// A quoted local part keeps its quotes and backslashes, the domain its case. It holds no control characters, neither
/// of ASCII nor beyond, so it can be put into another command as it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path {
    text: Box<str>,
    /// Where the `@` between local part and domain is.
    at: u16,
}

/// What MAIL names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`
    Null,
    Mailbox(Path),
}

/// What RCPT names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    Mailbox(Path),
    /// `<Postmaster>` without a domain (RFC 5321 section 4.5.1), as it was written.
    Postmaster(Box<str>),
}

/// Why something is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPath {
    Syntax,
    TooLong,
    /// It goes beyond ASCII in a way that no SMTPUTF8 helps: it is not UTF-8, or has a control character.
    NotAscii,
}

// === impl Path ===

impl Path {
    /// Reads a mailbox without angle brackets; all of `text` must be one.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidPath> {
        match mailbox(text)? {
            (path, []) => Ok(path),
            _ => Err(InvalidPath::Syntax),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// As written, with its quotes if it has any.
    pub fn local(&self) -> &str {
        self.text.get(..usize::from(self.at)).unwrap_or_default()
    }

    /// A domain name, or an address literal in its brackets.
    pub fn domain(&self) -> &str {
        self.text.get(usize::from(self.at) + 1..).unwrap_or_default()
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl ReversePath ===

impl ReversePath {
    /// Reads `<...>` at the front of `input` and returns what follows it.
    pub fn parse(input: &[u8]) -> Result<(Self, &[u8]), InvalidPath> {
        if let Some(rest) = input.strip_prefix(b"<>") {
            return Ok((Self::Null, rest));
        }
        let (path, rest) = bracketed(input)?;
        Ok((Self::Mailbox(path), rest))
    }

    /// Without angle brackets; empty for the null sender.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Mailbox(path) => path.as_str(),
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Null => None,
            Self::Mailbox(path) => Some(path),
        }
    }
}

// === impl ForwardPath ===

impl ForwardPath {
    /// Reads `<...>` at the front of `input` and returns what follows it.
    pub fn parse(input: &[u8]) -> Result<(Self, &[u8]), InvalidPath> {
        const POSTMASTER: usize = "postmaster".len();
        if let Some((b"<", rest)) = input.split_at_checked(1)
            && let Some((name, [b'>', rest @ ..])) = rest.split_at_checked(POSTMASTER)
            && name.eq_ignore_ascii_case(b"postmaster")
        {
            return Ok((Self::Postmaster(to_text(name)?), rest));
        }
        let (path, rest) = bracketed(input)?;
        Ok((Self::Mailbox(path), rest))
    }

    /// Without angle brackets.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Mailbox(path) => path.as_str(),
            Self::Postmaster(name) => name,
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Mailbox(path) => Some(path),
            Self::Postmaster(_) => None,
        }
    }
}

// === the grammar ===

/// Every function of the grammar reads the front of its input and returns what follows.
type Parsed<'a, T> = Result<(T, &'a [u8]), InvalidPath>;

fn bracketed(input: &[u8]) -> Parsed<'_, Path> {
    let text = expect(input, b'<')?;
    let (path, rest) = mailbox(source_route(text)?)?;
    Ok((path, expect(rest, b'>')?))
}

/// Drops `@a,@b:` (RFC 5321 section 4.1.1.3: such routes SHOULD be ignored).
fn source_route(input: &[u8]) -> Result<&[u8], InvalidPath> {
    let mut rest = input;
    if rest.first() != Some(&b'@') {
        return Ok(rest);
    }
    loop {
        rest = expect(rest, b'@')?;
        (_, rest) = domain(rest)?;
        match rest.split_first() {
            Some((b',', next)) => rest = next,
            Some((b':', next)) => return Ok(next),
            _ => return Err(InvalidPath::Syntax),
        }
    }
}

fn mailbox(input: &[u8]) -> Parsed<'_, Path> {
    let (local, rest) = if input.first() == Some(&b'"') { quoted_string(input)? } else { dot_string(input)? };
    let rest = expect(rest, b'@')?;
    let (domain, rest) = domain(rest)?;
    // Its own angle brackets count, the source route does not: it is not passed on.
    if local.len() + 1 + domain.len() + 2 > limits::PATH {
        return Err(InvalidPath::TooLong);
    }
    let at = u16::try_from(local.len()).map_err(|_| InvalidPath::TooLong)?;
    let text = input.get(..input.len() - rest.len()).ok_or(InvalidPath::Syntax)?;
    Ok((Path { text: to_text(text)?, at }, rest))
}

/// Atoms and dots. The grammar wants an atom on each side of a dot; mailboxes such as `a..b` and `a.` exist (large
/// Japanese providers gave them out), every server knows what they mean, and refusing them would lose their mail.
fn dot_string(input: &[u8]) -> Parsed<'_, &[u8]> {
    let length = input.iter().position(|&byte| !is_atext(byte) && byte != b'.').unwrap_or(input.len());
    let (local, rest) = input.split_at(length);
    if local.is_empty() { Err(InvalidPath::Syntax) } else { Ok((local, rest)) }
}

fn quoted_string(input: &[u8]) -> Parsed<'_, &[u8]> {
    let mut at = 1;
    loop {
        match input.get(at) {
            Some(b'"') => return Ok(input.split_at(at + 1)),
            Some(b'\\') => match input.get(at + 1) {
                Some(b' '..=b'~') => at += 2,
                _ => return Err(InvalidPath::Syntax),
            },
            Some(b' '..=b'~' | 0x80..) => at += 1,
            _ => return Err(InvalidPath::Syntax),
        }
    }
}

fn domain(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (domain, rest) =
        if input.first() == Some(&b'[') { address_literal(input)? } else { domain_name(input)? };
    if domain.len() > limits::DOMAIN { Err(InvalidPath::TooLong) } else { Ok((domain, rest)) }
}

/// Labels of letters, digits, what is beyond ASCII (U-labels: whether one is valid, whoever looks it up will see), hyphens (inside) and underscores, which names in use have; no final dot.
fn domain_name(input: &[u8]) -> Parsed<'_, &[u8]> {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | 0x80..);
    let length = input.iter().position(|&byte| !in_name(byte)).unwrap_or(input.len());
    let (name, rest) = input.split_at(length);
    for label in name.split(|&byte| byte == b'.') {
        if label.is_empty() || label.starts_with(b"-") || label.ends_with(b"-") {
            return Err(InvalidPath::Syntax);
        }
        // a U-label may be longer than its A-label, which is what the limit is for (RFC 5890 section 4.2)
        if label.is_ascii() && label.len() > limits::LABEL {
            return Err(InvalidPath::TooLong);
        }
    }
    Ok((name, rest))
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 section 4.1.3). No other kind was ever registered.
fn address_literal(input: &[u8]) -> Parsed<'_, &[u8]> {
    let end = memchr::memchr(b']', input).ok_or(InvalidPath::Syntax)?;
    let (literal, rest) = input.split_at(end + 1);
    let inner =
        literal.get(1..end).and_then(|inner| std::str::from_utf8(inner).ok()).ok_or(InvalidPath::Syntax)?;
    let valid = match inner.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse::<Ipv6Addr>().is_ok(),
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    };
    if valid { Ok((literal, rest)) } else { Err(InvalidPath::Syntax) }
}

/// RFC 5322 section 3.2.3, and RFC 6531 section 3.3.
fn is_atext(byte: u8) -> bool {
    !byte.is_ascii() || byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn expect(input: &[u8], wanted: u8) -> Result<&[u8], InvalidPath> {
    match input.split_first() {
        Some((&byte, rest)) if byte == wanted => Ok(rest),
        _ => Err(InvalidPath::Syntax),
    }
}

fn to_text(bytes: &[u8]) -> Result<Box<str>, InvalidPath> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.into()),
        _ => Err(InvalidPath::NotAscii),
    }
}

#[cfg(test)]
mod tests;
