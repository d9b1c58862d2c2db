//! One command line (RFC 5321 section 4.1.1), without its CRLF, read strictly.
//!
//! Tolerated, since old clients need it and nothing becomes ambiguous: blanks at the end of a line (section 4.1.1),
//! blanks between the colon of `MAIL FROM:` or `RCPT TO:` and the path, several blanks between parameters.

use crate::address::InvalidPath;
use crate::{ForwardPath, ReversePath, Violation, limits};

/// The verbs that are counted: the label of `torwart_smtp_commands_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    /// Its replies are the one to DATA and the one to the message.
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    StartTls,
    Unknown,
}

/// A command that can be obeyed, as far as one line tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The argument: printable ASCII without blanks, not checked to be a domain or an address literal.
    Ehlo(&'a str),
    Helo(&'a str),
    Mail(MailCommand),
    Rcpt(ForwardPath),
    Data,
    Bdat(Chunk),
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    StartTls,
}

/// One BDAT (RFC 3030 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The octets that follow the command.
    pub size: u64,
    pub last: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct MailCommand {
    pub sender: ReversePath,
    /// `SIZE=` (RFC 1870), in octets.
    pub size: Option<u64>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit: bool,
    /// `SMTPUTF8` (RFC 6531). Without it the sender is ASCII.
    pub smtputf8: bool,
}

// === impl Verb ===

impl Verb {
    pub const ALL: [Self; 14] = [
        Self::Ehlo,
        Self::Helo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Bdat,
        Self::Rset,
        Self::Noop,
        Self::Vrfy,
        Self::Expn,
        Self::Help,
        Self::Quit,
        Self::StartTls,
        Self::Unknown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ehlo => "ehlo",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Bdat => "bdat",
            Self::Rset => "rset",
            Self::Noop => "noop",
            Self::Vrfy => "vrfy",
            Self::Expn => "expn",
            Self::Help => "help",
            Self::Quit => "quit",
            Self::StartTls => "starttls",
            Self::Unknown => "unknown",
        }
    }

    /// The verb of a line, in any case, whatever follows it.
    pub fn of(line: &[u8]) -> Self {
        let end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        let word = line.get(..end).unwrap_or_default();
        let named = Self::ALL.into_iter().find(|verb| word.eq_ignore_ascii_case(verb.as_str().as_bytes()));
        named.unwrap_or(Self::Unknown)
    }
}

// === impl Command ===

impl<'a> Command<'a> {
    /// Reads one line. The verb is told in any case, for the counters.
    pub fn parse(line: &'a [u8]) -> (Verb, Result<Self, Violation>) {
        let line = trim_end(line);
        let verb = Verb::of(line);
        let command = Self::parse_as(verb, line);
        // whatever is wrong with a BDAT, nobody knows what follows it
        let command = if verb == Verb::Bdat { command.map_err(|_| Violation::ChunkSyntax) } else { command };
        (verb, command)
    }

    fn parse_as(verb: Verb, line: &'a [u8]) -> Result<Self, Violation> {
        if line.contains(&b'\r') || line.contains(&b'\n') {
            return Err(Violation::BareLineEnd);
        }
        if line.iter().any(u8::is_ascii_control) {
            return Err(Violation::ControlCharacter);
        }
        let argument = match line.iter().position(|&byte| byte == b' ') {
            Some(blank) => line.get(blank + 1..).unwrap_or_default(),
            None => b"",
        };
        match verb {
            Verb::Ehlo => helo_name(argument).map(Self::Ehlo),
            Verb::Helo => helo_name(argument).map(Self::Helo),
            Verb::Mail => mail(argument).map(Self::Mail),
            Verb::Rcpt => rcpt(argument).map(Self::Rcpt),
            Verb::Data => bare(argument, Self::Data),
            Verb::Bdat => chunk(argument).map(Self::Bdat),
            Verb::Rset => bare(argument, Self::Rset),
            Verb::Quit => bare(argument, Self::Quit),
            Verb::StartTls => bare(argument, Self::StartTls),
            Verb::Noop => Ok(Self::Noop),
            Verb::Help => Ok(Self::Help),
            Verb::Vrfy if argument.is_empty() => Err(Violation::Argument),
            Verb::Vrfy => Ok(Self::Vrfy),
            Verb::Expn => Err(Violation::NotImplemented),
            Verb::Unknown => Err(Violation::UnknownCommand),
        }
    }
}

/// Whether a line is the start of an HTTP request: a browser or a server tricked into talking to us.
pub(crate) fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 8] =
        [b"CONNECT ", b"DELETE ", b"GET ", b"HEAD ", b"OPTIONS ", b"PATCH ", b"POST ", b"PUT "];
    METHODS.iter().any(|method| line.starts_with(method))
}

/// RFC 5321 section 4.1.1: blanks before the CRLF are to be tolerated.
fn trim_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    line.get(..end).unwrap_or_default()
}

fn bare<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, Violation> {
    if argument.is_empty() { Ok(command) } else { Err(Violation::Argument) }
}

fn helo_name(argument: &[u8]) -> Result<&str, Violation> {
    let printable = !argument.is_empty() && argument.iter().all(u8::is_ascii_graphic);
    if !printable || argument.len() > limits::HELO {
        return Err(Violation::Argument);
    }
    std::str::from_utf8(argument).map_err(|_| Violation::Argument)
}

fn mail(argument: &[u8]) -> Result<MailCommand, Violation> {
    let path = after_colon(argument, b"FROM:")?;
    let (sender, rest) = ReversePath::parse(path).map_err(|invalid| match invalid {
        InvalidPath::NotAscii => Violation::SenderNotAscii,
        InvalidPath::Syntax | InvalidPath::TooLong => Violation::SenderSyntax,
    })?;
    let mut size = None;
    let mut body = None;
    let mut smtputf8 = None;
    for parameter in parameters(rest)? {
        let (keyword, value) = split_parameter(parameter)?;
        if keyword.eq_ignore_ascii_case(b"SIZE") {
            set_once(&mut size, octets(value.ok_or(Violation::ParameterSyntax)?)?)?;
        } else if keyword.eq_ignore_ascii_case(b"BODY") {
            set_once(&mut body, is_eight_bit(value.ok_or(Violation::ParameterSyntax)?)?)?;
        } else if keyword.eq_ignore_ascii_case(b"SMTPUTF8") {
            // RFC 6531 section 3.1: it has no value
            if value.is_some() {
                return Err(Violation::ParameterSyntax);
            }
            set_once(&mut smtputf8, ())?;
        } else {
            return Err(Violation::UnknownParameter);
        }
    }
    if smtputf8.is_none() && !sender.as_str().is_ascii() {
        return Err(Violation::SenderNotAscii);
    }
    Ok(MailCommand { sender, size, eight_bit: body.unwrap_or(false), smtputf8: smtputf8.is_some() })
}

/// `chunk-size [ SP "LAST" ]` (RFC 3030 section 2), with more blanks than one, too.
fn chunk(argument: &[u8]) -> Result<Chunk, Violation> {
    let mut words = argument.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let size = words.next().ok_or(Violation::ChunkSyntax).and_then(octets)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return Err(Violation::ChunkSyntax),
    };
    if words.next().is_some() { Err(Violation::ChunkSyntax) } else { Ok(Chunk { size, last }) }
}

fn rcpt(argument: &[u8]) -> Result<ForwardPath, Violation> {
    let path = after_colon(argument, b"TO:")?;
    let (recipient, rest) = ForwardPath::parse(path).map_err(|invalid| match invalid {
        InvalidPath::NotAscii => Violation::RecipientNotAscii,
        InvalidPath::Syntax | InvalidPath::TooLong => Violation::RecipientSyntax,
    })?;
    match parameters(rest)?.next() {
        None => Ok(recipient),
        Some(parameter) => Err(split_parameter(parameter).err().unwrap_or(Violation::UnknownParameter)),
    }
}

fn after_colon<'a>(argument: &'a [u8], word: &[u8]) -> Result<&'a [u8], Violation> {
    match argument.split_at_checked(word.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(word) => Ok(rest.trim_ascii_start()),
        _ => Err(Violation::Argument),
    }
}

/// What follows a path: nothing, or parameters with blanks before them.
fn parameters(rest: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Violation> {
    if rest.first().is_some_and(|&byte| byte != b' ') {
        return Err(Violation::ParameterSyntax);
    }
    Ok(rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty()))
}

/// `keyword` or `keyword=value` (RFC 5321 section 4.1.2, esmtp-param).
fn split_parameter(parameter: &[u8]) -> Result<(&[u8], Option<&[u8]>), Violation> {
    let equals = parameter.iter().position(|&byte| byte == b'=');
    let (keyword, value) = match equals {
        Some(at) => (parameter.get(..at).unwrap_or_default(), parameter.get(at + 1..)),
        None => (parameter, None),
    };
    let in_keyword = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let valid = keyword.first().is_some_and(u8::is_ascii_alphanumeric)
        && keyword.iter().all(in_keyword)
        && value.is_none_or(|value| {
            !value.is_empty() && value.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'=')
        });
    if valid { Ok((keyword, value)) } else { Err(Violation::ParameterSyntax) }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), Violation> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Violation::ParameterSyntax),
    }
}

/// One to twenty digits (RFC 1870 section 3); what is too large for 64 bits is as large as can be.
fn octets(value: &[u8]) -> Result<u64, Violation> {
    if value.len() > 20 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Violation::ParameterSyntax);
    }
    Ok(value.iter().fold(0u64, |sum, &digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

fn is_eight_bit(value: &[u8]) -> Result<bool, Violation> {
    if value.eq_ignore_ascii_case(b"8BITMIME") {
        Ok(true)
    } else if value.eq_ignore_ascii_case(b"7BIT") {
        Ok(false)
    } else {
        Err(Violation::ParameterSyntax)
    }
}

#[cfg(test)]
mod tests;
