//! What a peer can do wrong, and what it hears.

use crate::Reply;

/// A client's fault. One match turns it into the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    // --- lines and commands
    /// A bare CR or bare LF in a command line (RFC 5321 section 2.3.8).
    BareLineEnd,
    /// A control character or a byte above 126 where only printable ASCII may be.
    ControlCharacter,
    LineTooLong,
    UnknownCommand,
    /// EXPN (RFC 5321 section 4.2.4).
    NotImplemented,
    /// An argument is missing, wrong or too much.
    Argument,
    SenderSyntax,
    RecipientSyntax,
    /// A path beyond ASCII without SMTPUTF8 (RFC 6531 section 3.5), or that is not UTF-8.
    SenderNotAscii,
    RecipientNotAscii,
    /// A MAIL or RCPT parameter that was not offered (RFC 5321 section 4.1.1.11).
    UnknownParameter,
    /// A known parameter with a wrong value, or given twice.
    ParameterSyntax,
    /// A BDAT without a number of octets: what follows it can't be told from commands.
    ChunkSyntax,
    // --- order
    HeloFirst,
    NestedMail,
    MailFirst,
    RecipientFirst,
    /// DATA or BDAT after every recipient was refused.
    NoValidRecipients,
    /// DATA or RCPT between the chunks of a message (RFC 3030 section 2).
    AmongChunks,
    TlsRequired,
    TlsUnavailable,
    TlsActive,
    TlsInTransaction,
    // --- limits
    DeclaredTooLarge,
    TooManyRecipients,
    TooManyErrors,
    TooManyUnknownCommands,
    TooManyIdleCommands,
    TooManyTransactions,
    SessionTooOld,
    /// No command, or no data, in time.
    Idle,
    EndlessLine,
    EndlessMessage,
    // --- not SMTP
    /// An HTTP request.
    NotSmtp,
    /// Bytes behind STARTTLS (CVE-2011-0411).
    Injection,
    // --- messages
    /// Bare CR or bare LF in a message.
    BareNewline,
    NulByte,
    MessageTooLarge,
    HeaderTooLarge,
    MailLoop,
}

// === impl Violation ===

impl Violation {
    /// The reply as one line without CRLF.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BareLineEnd => "500 5.5.2 a command line ends in CRLF and has no other CR or LF",
            Self::ControlCharacter => "501 5.5.2 a command is printable ASCII",
            Self::LineTooLong => "500 5.5.2 line too long",
            Self::UnknownCommand => "500 5.5.1 command not recognized",
            Self::NotImplemented => "502 5.5.1 command not implemented",
            Self::Argument => "501 5.5.4 wrong argument",
            Self::SenderSyntax => "501 5.1.7 bad sender address syntax",
            Self::RecipientSyntax => "501 5.1.3 bad recipient address syntax",
            Self::SenderNotAscii | Self::RecipientNotAscii => {
                "553 5.6.7 address is not ASCII: it needs SMTPUTF8 at MAIL, and UTF-8"
            }
            Self::UnknownParameter => "555 5.5.4 parameter not recognized",
            Self::ParameterSyntax => "501 5.5.4 bad parameter syntax",
            Self::ChunkSyntax => "421 4.5.4 BDAT needs a number of octets, and LAST or nothing behind it",
            Self::HeloFirst => "503 5.5.1 send EHLO first",
            Self::NestedMail => "503 5.5.1 MAIL was given already",
            Self::MailFirst => "503 5.5.1 send MAIL first",
            Self::RecipientFirst => "503 5.5.1 send RCPT first",
            Self::NoValidRecipients => "554 5.5.1 no valid recipients",
            Self::AmongChunks => "503 5.5.1 the message has begun with BDAT: send BDAT or RSET",
            Self::TlsRequired => "530 5.7.0 send STARTTLS first",
            Self::TlsUnavailable => "454 4.7.0 TLS not available",
            Self::TlsActive => "503 5.5.1 TLS is active already",
            Self::TlsInTransaction => "503 5.5.1 STARTTLS not inside a transaction",
            Self::DeclaredTooLarge | Self::MessageTooLarge => "552 5.3.4 message too large",
            Self::TooManyRecipients => "452 4.5.3 too many recipients",
            Self::TooManyErrors => "421 4.7.0 too many errors",
            Self::TooManyUnknownCommands => "421 4.7.0 too many unknown commands",
            Self::TooManyIdleCommands => "421 4.7.0 too many commands without mail",
            Self::TooManyTransactions => "421 4.7.0 too many transactions, connect again",
            Self::SessionTooOld => "421 4.3.2 session too long, connect again",
            Self::Idle => "421 4.4.2 timed out waiting for the client",
            Self::EndlessLine => "421 4.7.0 endless line",
            Self::EndlessMessage => "421 4.3.4 endless message",
            Self::NotSmtp => "421 4.7.0 this is an SMTP server",
            Self::Injection => "421 4.7.0 data behind STARTTLS",
            Self::BareNewline => "550 5.5.2 message has a CR or LF that is not part of a CRLF",
            Self::NulByte => "550 5.5.2 message has a NUL",
            Self::HeaderTooLarge => "552 5.3.4 message header too large",
            Self::MailLoop => "554 5.4.6 too many hops: mail loop",
        }
    }

    pub fn reply(self) -> Reply {
        Reply::from_line(self.as_str())
    }

    /// The reply's first digit, 4 or 5.
    pub(crate) fn class(self) -> u8 {
        self.as_str().as_bytes().first().map_or(5, |digit| digit.wrapping_sub(b'0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_its_code_its_enhanced_code_and_a_text() {
        let reply = Violation::TlsRequired.reply();
        assert_eq!((reply.code, reply.enhanced), (530, Some((5, 7, 0))));
        assert_eq!(reply.lines, ["send STARTTLS first"]);
        assert_eq!(Violation::Idle.class(), 4);
    }
}
