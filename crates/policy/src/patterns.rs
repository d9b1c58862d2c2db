//! Patterns for mail addresses, as the sender and recipient lists write them.
//!
//! | pattern | matches |
//! |---|---|
//! | `user@partner.example` | this address |
//! | `*@partner.example` | every address of this domain |
//! | `*@*.partner.example` | every address of the domains below it, but not of itself |
//! | `bounce-*@partner.example` | a `*` in the local part stands for any characters, also for none |
//! | `abuse@*` | this local part in every domain |
//! | `*@*` | every address |
//! | `<>` | the null sender (in sender lists only) |
//! | `abuse` | this local part in every domain of the MailDomain (in recipient lists only) |
//!
//! Case does not matter, U-labels and A-labels are the same domain, and quotes around a local part that does not
//! need them are not part of it (RFC 5321 section 4.1.2).

use std::borrow::Cow;
use std::fmt;

use torwart_core::Mailbox;

use crate::domains::{DomainPattern, InvalidDomain, NameBuffer, is_below};

/// A pattern in the form above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPattern {
    /// `<>`
    NullSender,
    Address {
        local: LocalPattern,
        domain: AddressDomain,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalPattern {
    Any,
    /// In lower case.
    Exact(Box<str>),
    /// In lower case, with at least one `*`.
    Glob(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressDomain {
    Any,
    Named(DomainPattern),
}

/// Why a text is no pattern; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    #[error("is empty; write an address such as user@example.org, or *@example.org for a whole domain")]
    Empty,
    #[error("names no domain; write *@{0} for a whole domain, or {0}@* for a local part in every domain")]
    NoDomain(String),
    #[error("names no domain; write *@* for every address")]
    OnlyStar,
    #[error("has no local part before the @; write *{0} for a whole domain")]
    NoLocalPart(String),
    #[error("has a local part of more than 64 characters, which no address has")]
    LongLocalPart,
    #[error("has a space or a control character in it")]
    Space,
    #[error("is the null sender, which receives no mail")]
    NullRecipient,
    #[error("has the domain {domain:?}, which {error}")]
    Domain { domain: String, error: InvalidDomain },
}

/// RFC 5321 section 4.5.3.1.1.
const MAX_LOCAL: usize = 64;

// === impl AddressPattern ===

impl AddressPattern {
    /// Reads a pattern of a sender list.
    ///
    /// # Errors
    /// If it has none of the forms above.
    pub fn parse_sender(text: &str) -> Result<Self, InvalidPattern> {
        if text == "<>" {
            return Ok(Self::NullSender);
        }
        Self::parse(text, false)
    }

    /// Reads a pattern of a recipient list.
    ///
    /// # Errors
    /// If it has none of the forms above.
    pub fn parse_recipient(text: &str) -> Result<Self, InvalidPattern> {
        if text == "<>" {
            return Err(InvalidPattern::NullRecipient);
        }
        Self::parse(text, true)
    }

    fn parse(text: &str, bare_local: bool) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidPattern::Space);
        }
        let (local, domain) = match text.rsplit_once('@') {
            Some((local, domain)) => (local, domain),
            None if bare_local && !text.contains('.') => (text, "*"),
            None if text == "*" => return Err(InvalidPattern::OnlyStar),
            None => return Err(InvalidPattern::NoDomain(text.to_owned())),
        };
        if local.is_empty() {
            return Err(InvalidPattern::NoLocalPart(text.to_owned()));
        }
        if local.len() > MAX_LOCAL {
            return Err(InvalidPattern::LongLocalPart);
        }
        let domain = match domain {
            "*" => AddressDomain::Any,
            name => AddressDomain::Named(
                DomainPattern::parse_any(name)
                    .map_err(|error| InvalidPattern::Domain { domain: name.to_owned(), error })?,
            ),
        };
        Ok(Self::Address { local: LocalPattern::parse(local), domain })
    }

    /// Whether a sender matches; `None` is the null sender.
    pub fn matches_sender(&self, sender: Option<&Mailbox>) -> bool {
        match (self, sender) {
            (Self::NullSender, None) => true,
            (Self::NullSender, Some(_)) | (Self::Address { .. }, None) => false,
            (Self::Address { .. }, Some(mailbox)) => self.matches(mailbox),
        }
    }

    /// Whether an address matches.
    pub fn matches(&self, mailbox: &Mailbox) -> bool {
        match self {
            Self::NullSender => false,
            Self::Address { local, domain } => {
                domain.matches(&mailbox.domain) && local.matches(&mailbox.local)
            }
        }
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NullSender => f.write_str("<>"),
            Self::Address { local, domain } => {
                match local {
                    LocalPattern::Any => f.write_str("*@")?,
                    LocalPattern::Exact(text) | LocalPattern::Glob(text) => write!(f, "{text}@")?,
                }
                match domain {
                    AddressDomain::Any => f.write_str("*"),
                    AddressDomain::Named(pattern) => fmt::Display::fmt(pattern, f),
                }
            }
        }
    }
}

// === impl LocalPattern ===

impl LocalPattern {
    fn parse(text: &str) -> Self {
        let text = unquote(text).to_lowercase();
        match &*text {
            "*" => Self::Any,
            _ if text.contains('*') => Self::Glob(text.into()),
            _ => Self::Exact(text.into()),
        }
    }

    fn matches(&self, local: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) if local.is_ascii() && !local.starts_with('"') => {
                text.eq_ignore_ascii_case(local)
            }
            Self::Exact(text) => unquote(local).to_lowercase() == **text,
            Self::Glob(pattern) => glob(pattern, &unquote(local).to_lowercase()),
        }
    }
}

// === impl AddressDomain ===

impl AddressDomain {
    fn matches(&self, domain: &str) -> bool {
        let Self::Named(pattern) = self else {
            return true;
        };
        let mut buffer = NameBuffer::new();
        buffer.normalize(domain).is_some_and(|name| {
            if pattern.is_wildcard() { is_below(name, pattern.name()) } else { name == pattern.name() }
        })
    }
}

/// The content of a quoted local part (RFC 5321 section 4.1.2, Quoted-string); anything else as it is.
pub fn unquote(local: &str) -> Cow<'_, str> {
    let Some(content) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(local);
    };
    if !content.contains('\\') {
        return Cow::Borrowed(content);
    }
    let mut plain = String::with_capacity(content.len());
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    Cow::Owned(plain)
}

/// Whether `text` has the literal parts of `pattern` in order, the first at its start and the last at its end.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let Some((middle, last)) = rest.rsplit_once('*') else {
        return text.ends_with(rest);
    };
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = text.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests;
