//! What the verdict says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{ClassDigest, Mailbox, Reason, RouteDigest};

/// What happens to a connection, a recipient or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Accept,
    /// A 4xx: the sender keeps the mail and comes back.
    Defer,
    /// A 5xx: for good.
    Reject,
}

/// An SMTP reply (RFC 5321 section 4.2) with its enhanced status code (RFC 3463).
/// The text is one line of printable ASCII; the edge adds the transaction id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub enhanced: (u8, u16, u16),
    pub text: Arc<str>,
}

/// The SHA-256 of the policy's canonical form, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub Arc<str>);

/// Whether a client of this address is shown STARTTLS, and whether it must use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ListenerTls {
    #[default]
    Offer,
    Hide,
    /// MAIL before STARTTLS is 530 5.7.0.
    Require,
}

/// An EHLO keyword that a client may be spared. STARTTLS is [`ListenerTls`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keyword {
    Pipelining,
    Size,
    EightBitMime,
    EnhancedStatusCodes,
    SmtpUtf8,
    Chunking,
}

/// How greylisting answered for one recipient: the label of `torwart_greylist_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Greylist {
    /// Never seen: deferred.
    New,
    /// Seen, but the delay is not over: deferred.
    Early,
    /// The delay is over, or the triplet passed before.
    Passed,
    /// The sender delivered good mail to this domain before.
    Known,
    /// The client identity has delivered enough good mail to this domain.
    Auto,
    /// Recipient, sender, address or mode is exempt.
    Exempt,
    /// Seen, but longer ago than the retry window: deferred as new.
    Expired,
    /// Mode `Suspicious`, and nothing was.
    NotSuspicious,
    /// The store did not answer; `onStoreFailure` decided.
    StoreFailure,
}

/// The results that checks give: the words of RFC 8601 section 2.7, or ours for lists and scanners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckOutcome {
    Pass,
    Fail,
    SoftFail,
    Neutral,
    None,
    TempError,
    PermError,
    Policy,
    Listed,
    Clean,
    Infected,
    Error,
    Skipped,
}

/// One check's word.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    /// As in `spf` or `dns_list/zen`.
    pub name: Arc<str>,
    pub result: CheckOutcome,
    pub score: f32,
    pub detail: Arc<str>,
    pub milliseconds: u32,
}

/// What would have happened had the policy been enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitored {
    pub action: Action,
    pub reason: Reason,
}

#[derive(Clone, Debug)]
pub struct ConnectionAnswer {
    /// `None`: greet with 220. Otherwise say this (554 or 421) and close.
    pub refuse: Option<(Reply, Reason)>,
    pub tls: ListenerTls,
    /// How long to wait for a client that speaks too early, before the banner.
    pub greet_delay: Duration,
    /// What EHLO does not offer to this client.
    pub hidden: Vec<Keyword>,
    pub revision: Revision,
    /// False: under this revision every connection gets this same answer, so the edge may stop asking.
    pub ask_connections: bool,
}

#[derive(Clone, Debug)]
pub struct RecipientVerdict {
    /// What holds. With `Accept` there is a `route`; otherwise there is a `reply`.
    pub action: Action,
    pub reply: Option<Reply>,
    pub reason: Reason,
    /// In Monitor: what would have been. `None` means that what holds is what was judged.
    pub monitored: Option<Monitored>,
    pub greylist: Option<Greylist>,
    pub score: f32,
    /// The mail domain that named this recipient, as the manifest writes it (`example.org` or `*.example.org`).
    pub domain: Option<Arc<str>>,
    /// The MailDomain object, `namespace/name`.
    pub object: Option<Arc<str>>,
    /// Also given with `Defer` by greylisting: an edge that knows that this route's upstream does not know the recipient
    /// says so at once.
    pub route: Option<RouteDigest>,
    /// Recipients of one transaction share one delivery class.
    pub class: Option<ClassDigest>,
    /// The domain's `limits.messageSize` in bytes.
    pub size_limit: u64,
    /// Where the mail goes if not to the recipient as written (the bare `<Postmaster>`).
    pub deliver_to: Option<Mailbox>,
    /// Accepted at RCPT so that sender call-outs succeed, but DATA must answer this (the null sender's
    /// greylisting; it comes with action `Accept`).
    pub refuse_data: Option<Reply>,
    /// The message is held until [`crate::Verdicts::check_message`] has answered; otherwise it streams through.
    pub hold_message: bool,
}

#[derive(Clone, Debug)]
pub struct RecipientsAnswer {
    /// One for each recipient asked about, in that order.
    pub recipients: Vec<RecipientVerdict>,
    /// Who the client was taken for, as in `network:192.0.2.0/24`.
    pub identity: Option<Arc<str>>,
    pub checks: Vec<CheckResult>,
    pub revision: Revision,
    /// As in [`ConnectionAnswer::ask_connections`].
    pub ask_connections: bool,
}

// === impl Action ===

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Defer => "defer",
            Self::Reject => "reject",
        }
    }
}

// === impl Reply ===

impl Reply {
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl Into<Arc<str>>) -> Self {
        Self { code, enhanced, text: text.into() }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, subject, detail) = self.enhanced;
        write!(f, "{} {class}.{subject}.{detail} {}", self.code, self.text)
    }
}

// === impl Greylist ===

impl Greylist {
    pub const ALL: [Self; 9] = [
        Self::New,
        Self::Early,
        Self::Passed,
        Self::Known,
        Self::Auto,
        Self::Exempt,
        Self::Expired,
        Self::NotSuspicious,
        Self::StoreFailure,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Early => "early",
            Self::Passed => "passed",
            Self::Known => "known",
            Self::Auto => "auto",
            Self::Exempt => "exempt",
            Self::Expired => "expired",
            Self::NotSuspicious => "not_suspicious",
            Self::StoreFailure => "store_failure",
        }
    }
}

// === impl Keyword ===

impl Keyword {
    pub const ALL: [Self; 6] = [
        Self::Pipelining,
        Self::Size,
        Self::EightBitMime,
        Self::EnhancedStatusCodes,
        Self::SmtpUtf8,
        Self::Chunking,
    ];

    /// As EHLO says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::EightBitMime => "8BITMIME",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Chunking => "CHUNKING",
        }
    }
}

// === impl CheckOutcome ===

impl CheckOutcome {
    pub const ALL: [Self; 13] = [
        Self::Pass,
        Self::Fail,
        Self::SoftFail,
        Self::Neutral,
        Self::None,
        Self::TempError,
        Self::PermError,
        Self::Policy,
        Self::Listed,
        Self::Clean,
        Self::Infected,
        Self::Error,
        Self::Skipped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
            Self::Policy => "policy",
            Self::Listed => "listed",
            Self::Clean => "clean",
            Self::Infected => "infected",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
