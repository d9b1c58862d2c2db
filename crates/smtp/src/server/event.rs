//! What a session tells its driver.

use super::message::Message;
use crate::{Chunk, ForwardPath, ReversePath, Violation};

/// Whether this client may, can't or must use STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsOffer {
    #[default]
    Unavailable,
    Offered,
    /// MAIL before STARTTLS is 530 5.7.0.
    Required,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// RCPT commands that arrived together: decide, then call [`crate::Session::answer_recipients`].
    Recipients(Vec<ForwardPath>),
    /// DATA, or a message's first BDAT, with at least one accepted recipient: call [`crate::Session::start_data`] or
    /// [`crate::Session::refuse_data`].
    Data,
    /// Bytes of the message were appended to `body`: pass them on.
    Body,
    /// The message is complete; its last bytes may be in `body`. After `Err` it must not be passed on, and
    /// [`Violation::reply`] is the answer; a spoiled message in chunks ends with the chunk that spoiled it. In any case
    /// call [`crate::Session::finish_message`].
    EndOfMessage {
        result: Result<(), Violation>,
        /// Octets of the message, as SIZE counts them.
        size: u64,
    },
    /// The message can't be accepted any more: drop what was passed on. The rest is swallowed, then comes
    /// [`Event::EndOfMessage`] with the same violation. At most once for a message.
    MessageSpoiled(Violation),
    /// Write the output, call [`crate::Session::receive`] with the bytes left (they would be an injection), then shake
    /// hands and call [`crate::Session::tls_established`].
    StartTls,
    /// The transaction was given up by RSET, EHLO or HELO; between two chunks its message too.
    Reset,
    /// Write the output before going on.
    Flush,
    /// Write the output, then close. [`crate::Session::close_reason`] says why.
    Close,
}

/// What EHLO offers and a client may be spared (`smtpd_discard_ehlo_keywords` of Postfix): some stumble over one. What
/// belongs to it works all the same. STARTTLS is [`TlsOffer`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Keyword {
    Pipelining = 1,
    Size = 2,
    /// Hides SMTPUTF8 too, which is not to be offered without it (RFC 6531 section 3.1).
    EightBitMime = 4,
    EnhancedStatusCodes = 8,
    SmtpUtf8 = 16,
    Chunking = 32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    Quit,
    /// By [`crate::Session::refuse_connection`].
    Refused,
    /// By [`crate::Session::shut_down`].
    ShutDown,
    Violation(Violation),
}

/// From MAIL to the reply to the message.
#[derive(Debug)]
pub struct Transaction {
    pub sender: ReversePath,
    /// `SIZE=` in octets.
    pub declared_size: Option<u64>,
    /// `BODY=8BITMIME`.
    pub eight_bit: bool,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// Recipients accepted so far.
    pub accepted: u32,
    /// RCPT commands refused so far, for whatever reason.
    pub refused: u32,
    /// See [`crate::Session::label_transaction`].
    pub(super) label: Option<Box<str>>,
    /// DATA was answered "no valid recipients" already.
    pub(super) no_recipients_told: bool,
    /// The BDAT that is being read or was answered last.
    pub(super) chunk: Option<Chunk>,
    /// The message between two chunks.
    pub(super) message: Option<Box<Message>>,
}

// === impl CloseReason ===

impl CloseReason {
    /// A word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Refused => "refused",
            Self::ShutDown => "shutdown",
            Self::Violation(Violation::Idle) => "timeout",
            Self::Violation(Violation::SessionTooOld) => "session_age",
            Self::Violation(Violation::Injection) => "starttls_injection",
            Self::Violation(Violation::NotSmtp) => "not_smtp",
            Self::Violation(_) => "violation",
        }
    }
}
