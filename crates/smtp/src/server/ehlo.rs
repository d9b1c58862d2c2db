//! What is offered.

use std::sync::Arc;

use super::{Keyword, Session, Tls};

impl Session {
    /// The reply to EHLO (RFC 5321 section 4.1.1.1). It has no enhanced codes (RFC 2034 section 4).
    pub(super) fn write_ehlo(&mut self) {
        let size = format!("SIZE {}", self.config.limits.message_size);
        let starttls = matches!(self.tls, Tls::Offered | Tls::Required).then_some("STARTTLS");
        let shown = |keyword: Keyword, word| (self.hidden & keyword as u8 == 0).then_some(word);
        let keywords = [
            shown(Keyword::Pipelining, "PIPELINING"),                   // RFC 2920
            shown(Keyword::Size, size.as_str()),                        // RFC 1870
            shown(Keyword::EightBitMime, "8BITMIME"),                   // RFC 6152
            shown(Keyword::EnhancedStatusCodes, "ENHANCEDSTATUSCODES"), // RFC 2034
            shown(Keyword::EightBitMime, "SMTPUTF8").and(shown(Keyword::SmtpUtf8, "SMTPUTF8")), // RFC 6531
            shown(Keyword::Chunking, "CHUNKING"),                       // RFC 3030
            starttls,                                                   // RFC 3207
        ];
        let mut line = &*Arc::clone(&self.config.hostname);
        for keyword in keywords.iter().flatten() {
            self.write(&["250-", line, "\r\n"]);
            line = keyword;
        }
        self.write(&["250 ", line, "\r\n"]);
    }
}
