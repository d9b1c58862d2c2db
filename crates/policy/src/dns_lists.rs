//! DNS lists of client addresses (RFC 5782): the name that is asked for, and what the answers mean. No look-up here.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use torwart_core::CheckOutcome;

/// One of the gateway's `dnsLists`.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsList {
    pub name: Arc<str>,
    /// In A-label form and lower case, without a dot at its end and without the query key.
    pub zone: Arc<str>,
    pub kind: ListKind,
    /// A file in the secrets directory.
    pub key_file: Option<Arc<str>>,
    pub responses: Vec<ListResponse>,
    pub probe: ListProbe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Listed is bad.
    Block,
    /// Listed is good.
    Allow,
}

/// Answers, and what they add to the score.
#[derive(Clone, Debug, PartialEq)]
pub struct ListResponse {
    pub answers: ListAnswers,
    pub score: f32,
}

/// Some of the addresses that a list may answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAnswers {
    /// From the first to the last.
    Codes(Vec<(Ipv4Addr, Ipv4Addr)>),
    /// Of the last octet, of which one must be set.
    Bits(u8),
}

/// An address that a working list has, and one that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListProbe {
    pub listed: IpAddr,
    pub not_listed: IpAddr,
}

/// What one list says of one address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ListWord {
    NotListed,
    /// `code` is the answer that weighs most.
    Listed {
        code: Ipv4Addr,
        score: f32,
    },
    /// Listed, for a cause that the manifest gives no weight.
    Unweighed {
        code: Ipv4Addr,
    },
    /// Not an answer about the address: the list refuses us, or is no list any more.
    Error {
        code: IpAddr,
    },
}

/// The same, as a fact about a client.
#[derive(Clone, Debug, PartialEq)]
pub struct ListFinding {
    /// [`DnsList::name`]
    pub list: Arc<str>,
    /// As in `dns_list/zen`.
    pub check: Arc<str>,
    pub kind: ListKind,
    /// `Listed`, `Clean`, `Error` or `Skipped`.
    pub result: CheckOutcome,
    /// Not 0 only if it is listed.
    pub score: f32,
    pub detail: Arc<str>,
    pub milliseconds: u32,
}

// === impl ListProbe ===

impl Default for ListProbe {
    /// RFC 5782 section 5: the entries that every list must, and must not, have.
    fn default() -> Self {
        Self {
            listed: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
            not_listed: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
        }
    }
}

// === impl DnsList ===

impl DnsList {
    /// Several answers count once: the one that weighs most, which is the highest score of a block list and the lowest
    /// of an allow list. One error among them spoils all.
    pub fn word(&self, answers: &[IpAddr]) -> ListWord {
        let mut word = ListWord::NotListed;
        for answer in answers {
            let code = match self.code(*answer) {
                Ok(code) => code,
                Err(code) => return ListWord::Error { code },
            };
            match (self.weight(code), word) {
                (Some(score), ListWord::Listed { score: most, .. }) if score.abs() <= most.abs() => {}
                (Some(score), _) => word = ListWord::Listed { code, score },
                (None, ListWord::NotListed) => word = ListWord::Unweighed { code },
                (None, _) => {}
            }
        }
        word
    }

    /// The answer, if it says something of the address.
    ///
    /// Not those outside 127.0.0.0/8 (RFC 5782 section 2.3: a parked domain), those of 127.255.255.0/24 (Spamhaus: asked
    /// in a wrong way, through a public resolver, or too often), .255 of an allow list (DNSWL: asked too often) and bit
    /// 1 of a list that answers in bits (SURBL, URIBL: the resolver is shut out).
    fn code(&self, answer: IpAddr) -> Result<Ipv4Addr, IpAddr> {
        let IpAddr::V4(code) = answer else { return Err(answer) };
        let [first, second, third, last] = code.octets();
        let in_bits = self.responses.iter().any(|it| matches!(it.answers, ListAnswers::Bits(_)));
        let is_error = first != 127
            || (second, third) == (255, 255)
            || (self.kind == ListKind::Allow && last == 255)
            || (in_bits && last & 1 == 1);
        if is_error { Err(answer) } else { Ok(code) }
    }

    fn weight(&self, code: Ipv4Addr) -> Option<f32> {
        let matching = self.responses.iter().filter(|response| response.answers.hold(code));
        matching.map(|response| response.score).max_by(|a, b| a.abs().total_cmp(&b.abs()))
    }
}

// === impl ListAnswers ===

impl ListAnswers {
    pub fn hold(&self, code: Ipv4Addr) -> bool {
        match self {
            Self::Codes(ranges) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&code)),
            Self::Bits(bits) => code.octets()[3] & bits != 0,
        }
    }

    /// The addresses that a manifest names: `127.0.0.2`, or `127.0.0.2-127.0.0.9`.
    ///
    /// # Errors
    /// Says what is wrong with `text`, to stand behind its field's name.
    pub fn read_codes(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let parse = |text: &str| text.trim().parse::<Ipv4Addr>().ok();
        let (Some(first), Some(last)) = (parse(first), parse(last)) else {
            return Err(format!("is {text:?}; write 127.0.0.2, or 127.0.0.2-127.0.0.9"));
        };
        if first.octets()[0] != 127 || last.octets()[0] != 127 {
            return Err(format!("is {text:?}; a list answers within 127.0.0.0/8"));
        }
        if first > last {
            return Err(format!("is {text:?}; the first address must not be above the last"));
        }
        Ok((first, last))
    }
}

/// The part of a query's name that stands before the zone, without a dot at its end: octets (RFC 5782 section 2.1) or
/// nibbles (section 2.4), the last first. An IPv4 address is asked for as such, however it came.
pub fn reversed(client: IpAddr) -> String {
    let mut name = String::with_capacity(64);
    let mut push = |label: std::fmt::Arguments<'_>| {
        if !name.is_empty() {
            name.push('.');
        }
        // Writing to a String does not fail.
        let _ = name.write_fmt(label);
    };
    match client.to_canonical() {
        IpAddr::V4(ip) => ip.octets().iter().rev().for_each(|octet| push(format_args!("{octet}"))),
        IpAddr::V6(ip) => {
            for octet in ip.octets().iter().rev() {
                push(format_args!("{:x}", octet & 0xf));
                push(format_args!("{:x}", octet >> 4));
            }
        }
    }
    name
}
