//! Which mail domain a recipient belongs to.
//!
//! ```text
//!   alice@eu.lists.example.org
//!         |
//!         +- exact      eu.lists.example.org
//!         +- wildcard *.lists.example.org, then *.example.org, then *.org   (the most specific wins)
//! ```
//!
//! Domains that left the policy a short while ago, and those of objects that can't be put in force, stand among the
//! others: a wildcard above does not take their mail.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::model::{Domain, DomainMatch};

/// Every mail domain of one policy. A look-up costs one hash probe per label of the name.
#[derive(Debug, Default)]
pub struct DomainTable {
    names: Names<Entry>,
    known: usize,
}

#[derive(Debug)]
enum Entry {
    Known {
        /// As a manifest writes it.
        shown: Arc<str>,
        domain: Arc<Domain>,
    },
    Held,
    Removed {
        until: i64,
    },
}

/// A mail domain as a manifest may name it: `example.org`, or `*.example.org` for every name below it, but not
/// `example.org` itself. Held in A-label form (RFC 5890), lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern {
    /// Without the `*.`.
    name: Arc<str>,
    wildcard: bool,
}

/// Why a text is no mail domain; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDomain {
    #[error("is empty; write a domain such as example.org")]
    Empty,
    #[error("ends in a dot; write the domain without it")]
    TrailingDot,
    #[error("is an address literal; only domain names can be mail domains")]
    AddressLiteral,
    #[error("is an address; write only the part after the @")]
    MailAddress,
    #[error("has a * in a place where none can be; only a leading *. is a wildcard")]
    Wildcard,
    #[error("is no valid domain name: {0}")]
    Name(&'static str),
    #[error("is a public suffix, under which anyone can register; name the domain that you own")]
    PublicSuffix,
}

/// Longest name in text form (RFC 1035 section 2.3.4: 255 octets on the wire, two of them not text).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

#[derive(Debug)]
struct Names<T> {
    exact: HashMap<Key, T>,
    /// By the name without its `*.`.
    below: HashMap<Key, T>,
}

/// A domain in lower case, found by its bytes.
#[derive(Debug, PartialEq, Eq)]
struct Key(Arc<str>);

// === impl DomainTable ===

impl DomainTable {
    /// A pattern that comes twice in `known` keeps its last value; `compile` reports such conflicts before it comes to
    /// this. What is known is neither held nor removed, what is held is not removed.
    pub fn new(
        known: impl IntoIterator<Item = (DomainPattern, Arc<Domain>)>,
        held: impl IntoIterator<Item = DomainPattern>,
        removed: impl IntoIterator<Item = (DomainPattern, i64)>,
    ) -> Self {
        let mut names = Names::default();
        for (pattern, until) in removed {
            names.insert(pattern, Entry::Removed { until });
        }
        for pattern in held {
            names.insert(pattern, Entry::Held);
        }
        for (pattern, domain) in known {
            let shown = pattern.to_string().into();
            names.insert(pattern, Entry::Known { shown, domain });
        }
        let known = names.values().filter(|entry| matches!(entry, Entry::Known { .. })).count();
        Self { names, known }
    }

    /// What `domain` is at `now` (Unix seconds). Case does not matter, U-labels and A-labels are the same name.
    /// A trailing dot, an address literal or a name that cannot be one is `Unknown`.
    pub fn find(&self, domain: &str, now: i64) -> DomainMatch<'_> {
        let mut buffer = NameBuffer::new();
        let Some(name) = buffer.normalize(domain) else {
            return DomainMatch::Unknown;
        };
        let holds = |entry: &Entry| !matches!(entry, Entry::Removed { until } if *until <= now);
        match self.names.find(name, holds) {
            Some(Entry::Known { shown, domain }) => DomainMatch::Known { pattern: shown, domain },
            Some(Entry::Held) => DomainMatch::Held,
            Some(Entry::Removed { until }) => DomainMatch::Removed { until: *until },
            None => DomainMatch::Unknown,
        }
    }

    /// How many mail domains are in force, wildcards included.
    pub fn len(&self) -> usize {
        self.known
    }

    /// How many are deferred since their objects are not in force.
    pub fn held(&self) -> usize {
        self.names.values().filter(|entry| matches!(entry, Entry::Held)).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every mail domain in force as written in A-label form, with its object; in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Domain>)> {
        self.names.values().filter_map(|entry| match entry {
            Entry::Known { shown, domain } => Some((shown, domain)),
            Entry::Held | Entry::Removed { .. } => None,
        })
    }
}

// === impl DomainPattern ===

impl DomainPattern {
    /// Reads a mail domain; U-labels become A-labels.
    ///
    /// # Errors
    /// If it is no domain name, or a public suffix (of <https://publicsuffix.org>, private section included), or a
    /// wildcard over one.
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        let pattern = Self::parse_any(text)?;
        if psl::suffix_str(&pattern.name).is_some_and(|suffix| suffix == &*pattern.name)
            && psl::suffix(pattern.name.as_bytes()).is_some_and(|suffix| suffix.is_known())
        {
            return Err(InvalidDomain::PublicSuffix);
        }
        Ok(pattern)
    }

    /// As [`parse`](Self::parse), but a public suffix will do: what tenants are granted may be `*.org`.
    ///
    /// # Errors
    /// If it is no domain name.
    pub fn parse_any(text: &str) -> Result<Self, InvalidDomain> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = ascii_name(name)?;
        Ok(Self { name: name.into(), wildcard })
    }

    /// Without the `*.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether every name of `other` is a name of this.
    pub fn covers(&self, other: &Self) -> bool {
        match (self.wildcard, other.wildcard) {
            (false, _) => self == other,
            (true, false) => is_below(&other.name, &self.name),
            (true, true) => other.name == self.name || is_below(&other.name, &self.name),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wildcard {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Debug for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `name` lies below `parent` by one label or more; both in lower case.
pub(crate) fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// The name in A-label form and lower case.
pub(crate) fn ascii_name(text: &str) -> Result<String, InvalidDomain> {
    if text.is_empty() {
        return Err(InvalidDomain::Empty);
    }
    if text.starts_with('[') {
        return Err(InvalidDomain::AddressLiteral);
    }
    if text.contains('@') {
        return Err(InvalidDomain::MailAddress);
    }
    if text.contains('*') {
        return Err(InvalidDomain::Wildcard);
    }
    if text.ends_with(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']) {
        return Err(InvalidDomain::TrailingDot);
    }
    let ascii = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY)
            .map_err(|_| InvalidDomain::Name("its non-ASCII letters are no valid IDN"))?
            .into_owned()
    };
    check_name(&ascii)?;
    Ok(ascii)
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63 (RFC 1035 section 2.3.1; underscores occur in
/// mail domains and harm nobody).
fn check_name(name: &str) -> Result<(), InvalidDomain> {
    if name.len() > MAX_NAME {
        return Err(InvalidDomain::Name("it is longer than 253 characters"));
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(InvalidDomain::Name("it is an IP address"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(InvalidDomain::Name("two dots stand side by side, or one stands in front"));
        }
        if label.len() > MAX_LABEL {
            return Err(InvalidDomain::Name("a label is longer than 63 characters"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(InvalidDomain::Name("a label starts or ends with a hyphen"));
        }
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(InvalidDomain::Name("labels hold letters, digits, hyphens and underscores only"));
        }
        if label.starts_with("xn--") && idna::domain_to_unicode(label).1.is_err() {
            return Err(InvalidDomain::Name("a label that begins with xn-- is no valid A-label"));
        }
    }
    Ok(())
}

// === NameBuffer ===

/// Room for a name in lower case, so that a look-up allocates nothing for an ASCII name.
pub(crate) struct NameBuffer {
    ascii: [u8; MAX_NAME],
    idn: String,
}

impl NameBuffer {
    pub(crate) fn new() -> Self {
        Self { ascii: [0; MAX_NAME], idn: String::new() }
    }

    /// `domain` in A-label form and lower case, or `None` if it can be no mail domain.
    pub(crate) fn normalize(&mut self, domain: &str) -> Option<&str> {
        if domain.is_ascii() {
            let place = self.ascii.get_mut(..domain.len())?;
            place.copy_from_slice(domain.as_bytes());
            place.make_ascii_lowercase();
            let valid = !domain.is_empty() && !domain.starts_with(['[', '.']) && !domain.ends_with('.');
            return std::str::from_utf8(place).ok().filter(|_| valid);
        }
        self.idn = ascii_name(domain).ok()?;
        Some(&self.idn)
    }
}

// === impl Names ===

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new() }
    }
}

impl<T> Names<T> {
    fn insert(&mut self, pattern: DomainPattern, value: T) {
        let names = if pattern.wildcard { &mut self.below } else { &mut self.exact };
        names.insert(Key(pattern.name), value);
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.below.values())
    }

    /// The most specific of those that `holds` says are there.
    fn find(&self, name: &str, holds: impl Fn(&T) -> bool) -> Option<&T> {
        if let Some(value) = self.exact.get(name).filter(|value| holds(value)) {
            return Some(value);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(value) = self.below.get(parent).filter(|value| holds(value)) {
                return Some(value);
            }
            rest = parent;
        }
        None
    }
}

// === impl Key ===

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        str::hash(&self.0, state);
    }
}

#[cfg(test)]
mod tests;
