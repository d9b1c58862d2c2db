//! What is offered.

use std::sync::Arc;

use super::{Session, Tls};

impl Session {
    /// The reply to EHLO (RFC 5321 section 4.1.1.1). It has no enhanced codes (RFC 2034 section 4).
    pub(super) fn write_ehlo(&mut self) {
        let size = format!("SIZE {}", self.config.limits.message_size);
        let starttls = matches!(self.tls, Tls::Offered | Tls::Required).then_some("STARTTLS");
        let keywords = [
            Some("PIPELINING"),          // RFC 2920
            Some(size.as_str()),         // RFC 1870
            Some("8BITMIME"),            // RFC 6152
            Some("ENHANCEDSTATUSCODES"), // RFC 2034
            starttls,                    // RFC 3207
        ];
        let mut line = &*Arc::clone(&self.config.hostname);
        for keyword in keywords.iter().flatten() {
            self.write(&["250-", line, "\r\n"]);
            line = keyword;
        }
        self.write(&["250 ", line, "\r\n"]);
    }
}
