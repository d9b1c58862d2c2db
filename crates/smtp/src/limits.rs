//! Every limit of the protocol with its default and its reason.

use std::time::Duration;

/// What one session may use. All sizes are in octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A command line with its CRLF. RFC 5321 section 4.5.3.1.4 asks for 512, and extensions add to it
    /// (RFC 1870: 26, RFC 6152: 17, RFC 6531: 10); the rest is room for what is to come.
    pub command_line: usize,
    /// What of an over-long line is swallowed before the session ends. Someone who sends this much without a CRLF
    /// does not speak SMTP.
    pub endless_line: u32,
    /// The header section of a message. Real headers stay below 64 KiB; mail servers behind us stop at 100 KiB to
    /// 1 MiB.
    pub header_size: u64,
    /// A message, as SIZE announces it (RFC 1870): with its line ends, without stuffing dots.
    pub message_size: u64,
    /// Recipients accepted in one transaction. RFC 5321 section 4.5.3.1.8 asks for at least 100. So many may also be
    /// put off before each further one counts as an error (Postfix tolerates 1000 in excess too).
    pub recipients: u32,
    /// RCPT commands that are asked about together, so that one question stays small.
    pub batch: usize,
    /// Replies of class 5 since the last accepted message before the next is 421 (20 as in Postfix).
    pub errors: u32,
    /// Commands nobody knows before the next is 421.
    pub unknown_commands: u32,
    /// Commands that bring no mail (EHLO, NOOP, RSET, VRFY, HELP, EXPN) since the last message, before the next is 421.
    pub idle_commands: u32,
    /// MAIL commands before the next is 421, so that long-lived clients are spread over replicas again.
    pub transactions: u32,
    /// After this a session ends between transactions; after twice this also before its DATA.
    pub session_age: Duration,
    /// The time to bring one whole command (RFC 5321 section 4.5.3.2.7).
    pub idle_command: Duration,
    /// Between two pieces of a message (RFC 5321 section 4.5.3.2.5).
    pub idle_data: Duration,
    /// The same, once nothing of the message can be accepted any more: its sender is only waited for to be polite.
    pub idle_spoiled: Duration,
    /// For a whole message: 50 MiB within it is 15 kB/s.
    pub message_time: Duration,
    /// More Received fields are a loop (RFC 5321 section 6.3 asks for at least 100 where nothing else detects
    /// loops; real paths stay below 20).
    pub received_fields: u32,
}

/// Domain (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN: usize = 255;
/// Path with its angle brackets. RFC 5321 section 4.5.3.1 asks for at least 64 octets of local part and 256 of path,
/// and advises against holding anyone to them: mailing services put the recipient and a signature into their senders'
/// local parts (VERP, SRS) and go beyond both. The upstream has the last word.
pub const PATH: usize = 1000;
/// One label of a domain name (RFC 1035 section 2.3.4).
pub const LABEL: usize = 63;
/// The argument of EHLO and HELO: a domain or an address literal.
pub const HELO: usize = 255;

/// A reply line that we write, with its CRLF (RFC 5321 section 4.5.3.1.5).
pub const REPLY_LINE_OUT: usize = 512;
/// A reply line that we take from an upstream, with its CRLF: twice what the RFC allows it.
pub const REPLY_LINE_IN: usize = 1024;
/// Lines of one upstream reply. EHLO of a server with everything has about 20.
pub const REPLY_LINES: usize = 100;
/// One upstream reply in all.
pub const REPLY_SIZE: usize = 16 * 1024;

/// Output at which a session wants to be flushed before it goes on.
pub const OUTPUT_FLUSH: usize = 2 * 1024;
/// A spoiled message is swallowed up to this multiple of the message limit (and at least `SWALLOW_FLOOR`): a client
/// that is merely over the limit hears its 552 at the dot, an endless message ends.
pub const SWALLOW_FACTOR: u64 = 2;
pub const SWALLOW_FLOOR: u64 = 64 * 1024;

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_line: 2048,
            endless_line: 64 * 1024,
            header_size: 256 * 1024,
            message_size: 50 * 1024 * 1024,
            recipients: 1000,
            batch: 100,
            errors: 20,
            unknown_commands: 5,
            idle_commands: 100,
            transactions: 100,
            session_age: Duration::from_secs(60 * 60),
            idle_command: Duration::from_secs(5 * 60),
            idle_data: Duration::from_secs(3 * 60),
            idle_spoiled: Duration::from_secs(60),
            message_time: Duration::from_secs(60 * 60),
            received_fields: 50,
        }
    }
}
