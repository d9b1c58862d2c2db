//! What an upstream offers in its reply to EHLO.

use crate::Reply;

/// Empty until EHLO was accepted, and after a mere HELO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// EHLO or LHLO was accepted.
    pub esmtp: bool,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: the maximum in octets, 0 for none said.
    pub size: Option<u64>,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 2034.
    pub enhanced: bool,
    /// The attributes that XCLIENT may name.
    pub xclient: Option<Vec<String>>,
    /// The attributes that XFORWARD may name.
    pub xforward: Option<Vec<String>>,
}

// === impl Capabilities ===

impl Capabilities {
    /// Reads the lines after the first (RFC 5321 section 4.1.1.1). What it does not know it passes over.
    pub fn parse(reply: &Reply) -> Self {
        let mut known = Self { esmtp: true, ..Self::default() };
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else {
                continue;
            };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => known.pipelining = true,
                "SIZE" => known.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
                "8BITMIME" => known.eight_bit = true,
                "SMTPUTF8" => known.smtputf8 = true,
                "STARTTLS" => known.starttls = true,
                "CHUNKING" => known.chunking = true,
                "ENHANCEDSTATUSCODES" => known.enhanced = true,
                "XCLIENT" => known.xclient = Some(words.map(str::to_ascii_uppercase).collect()),
                "XFORWARD" => known.xforward = Some(words.map(str::to_ascii_uppercase).collect()),
                _ => {}
            }
        }
        known
    }
}
