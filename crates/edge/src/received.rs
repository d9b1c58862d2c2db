//! The trace field that is put on top of each message: `Received` (RFC 5321 section 4.4).

#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::SystemTime;

use torwart_core::{Id, Mailbox};

/// What the trace field says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace<'a> {
    pub(crate) helo: Option<&'a str>,
    pub(crate) client: IpAddr,
    pub(crate) hostname: &'a str,
    /// EHLO rather than HELO.
    pub(crate) esmtp: bool,
    pub(crate) tls: bool,
    /// MAIL had SMTPUTF8.
    pub(crate) smtputf8: bool,
    pub(crate) id: Id,
    /// Given only when the message has one recipient, so that nobody learns of another.
    pub(crate) only_recipient: Option<&'a Mailbox>,
    pub(crate) time: SystemTime,
}

struct Sanitised<'a>(&'a str);
struct Literal(IpAddr);
struct Date(SystemTime);

/// RFC 5321 section 4.5.3.1.2: a domain has at most 255 octets.
const LONGEST_NAME: usize = 255;
/// RFC 5321 section 4.5.3.1.3: a path has at most 256 octets; ours may be longer, but not in a header line, which
/// has at most 998 (RFC 5322 section 2.1.1).
const LONGEST_PATH: usize = 900;

impl Trace<'_> {
    /// The field, each line with its CRLF. Nothing that the client said can end a line or a comment in it.
    pub(crate) fn received(&self) -> String {
        let mut field = String::with_capacity(320);
        // writing to a String cannot fail
        let _ = self.write(&mut field);
        field
    }

    fn write(&self, field: &mut String) -> fmt::Result {
        let helo = Sanitised(self.helo.unwrap_or_default());
        write!(field, "Received: from {helo} (unknown {})\r\n", Literal(self.client))?;
        write!(field, "\tby {} (Torwart) with {} id {}", Sanitised(self.hostname), self.protocol(), self.id)?;
        if let Some(recipient) = self.only_recipient.filter(|recipient| self.fits_header(recipient)) {
            write!(field, "\r\n\tfor <{recipient}>")?;
        }
        write!(field, ";\r\n\t{}\r\n", Date(self.time))
    }

    /// RFC 3848, and RFC 6531 section 4.3.
    fn protocol(&self) -> &'static str {
        match (self.smtputf8, self.tls, self.esmtp) {
            (true, true, _) => "UTF8SMTPS",
            (true, false, _) => "UTF8SMTP",
            (false, true, _) => "ESMTPS",
            (false, false, true) => "ESMTP",
            (false, false, false) => "SMTP",
        }
    }

    /// Beyond ASCII only in a message that may be so (RFC 6531 section 3.7.3).
    fn fits_header(&self, recipient: &Mailbox) -> bool {
        let printable = |text: &str| {
            text.chars()
                .all(|c| matches!(c, ' '..='~') || (self.smtputf8 && !c.is_ascii() && !c.is_control()))
        };
        let length = recipient.local.len() + recipient.domain.len();
        length <= LONGEST_PATH && printable(&recipient.local) && printable(&recipient.domain)
    }
}

// === impl Display ===

impl fmt::Display for Sanitised<'_> {
    /// What no domain name or address literal has becomes `?`; nothing becomes `unknown`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("unknown");
        }
        self.0.chars().take(LONGEST_NAME).try_for_each(|c| {
            let plain = c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
            f.write_char(if plain { c } else { '?' })
        })
    }
}

impl fmt::Display for Literal {
    /// RFC 5321 section 4.1.3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "[{ip}]"),
            IpAddr::V6(ip) => write!(f, "[IPv6:{ip}]"),
        }
    }
}

impl fmt::Display for Date {
    /// RFC 5322 section 3.3, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::try_from(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{}", time.strftime("%a, %d %b %Y %H:%M:%S +0000"))
    }
}
