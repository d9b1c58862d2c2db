//! The records, and the lines that they become. The keys are part of the contract.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use torwart_core::{
    Action, CheckResult, ClassDigest, Envelope, Greylist, Id, Mailbox, Peer, Reason, Revision, TlsFacts,
};

use super::{LogAddresses, LogFormat, MailLogOptions};
use crate::metrics::SessionOutcome;

#[derive(Debug)]
pub(crate) enum Record {
    Transaction(Box<TransactionRecord>),
    Session(SessionRecord),
}

/// One transaction, from its MAIL to its last reply.
#[derive(Debug)]
pub(crate) struct TransactionRecord {
    pub(crate) id: Id,
    pub(crate) time: SystemTime,
    pub(crate) peer: Arc<Peer>,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) message_id: Option<Box<str>>,
    /// Bytes of the message as received, if one came.
    pub(crate) size: Option<u64>,
    pub(crate) action: Action,
    /// `None` when the client went away before there was a reply.
    pub(crate) code: Option<u16>,
    pub(crate) reason: Reason,
    pub(crate) score: f32,
    pub(crate) checks: Vec<CheckResult>,
    pub(crate) identity: Option<Arc<str>>,
    pub(crate) domain_class: Option<ClassDigest>,
    pub(crate) upstream: Option<String>,
    pub(crate) upstream_reply: Option<String>,
    pub(crate) revision: Option<Revision>,
    /// False when Monitor let something pass that the policy would have stopped.
    pub(crate) enforced: bool,
    pub(crate) duration_ms: u64,
    /// If the session is traced.
    pub(crate) trace_id: Option<Box<str>>,
    pub(crate) recipients: Vec<RecipientRecord>,
}

#[derive(Clone, Debug)]
pub(crate) struct RecipientRecord {
    pub(crate) to: Mailbox,
    pub(crate) domain: Option<Arc<str>>,
    pub(crate) action: Action,
    pub(crate) code: u16,
    pub(crate) enhanced: (u8, u16, u16),
    pub(crate) reason: Reason,
    pub(crate) greylist: Option<Greylist>,
    pub(crate) score: f32,
}

/// One session that had no transaction.
#[derive(Debug)]
pub(crate) struct SessionRecord {
    pub(crate) id: Id,
    pub(crate) time: SystemTime,
    pub(crate) client: SocketAddr,
    /// It spoke before it was greeted.
    pub(crate) early_talker: bool,
    pub(crate) outcome: SessionOutcome,
    pub(crate) duration_ms: u64,
    pub(crate) trace_id: Option<Box<str>>,
}

#[derive(Serialize)]
struct TransactionLine<'a> {
    event: &'static str,
    id: Shown<Id>,
    time: Time,
    client: std::net::IpAddr,
    client_port: u16,
    rdns: Option<&'a str>,
    helo: Option<&'a str>,
    tls: Option<Tls<'a>>,
    early_talker: bool,
    from: Address<'a>,
    message_id: Option<&'a str>,
    size: Option<u64>,
    action: &'static str,
    code: Option<u16>,
    reason: &'static str,
    score: Score,
    checks: Vec<CheckLine<'a>>,
    identity: Option<&'a str>,
    domain_class: Option<Shown<ClassDigest>>,
    upstream: Option<&'a str>,
    upstream_reply: Option<&'a str>,
    revision: Option<&'a str>,
    enforced: bool,
    duration_ms: u64,
    trace_id: Option<&'a str>,
    pod: Option<&'a str>,
    recipients: Vec<RecipientLine<'a>>,
}

#[derive(Serialize)]
struct RecipientLine<'a> {
    to: Address<'a>,
    domain: Option<&'a str>,
    action: &'static str,
    code: u16,
    enhanced: Enhanced,
    reason: &'static str,
    greylist: Option<&'static str>,
    score: Score,
}

#[derive(Serialize)]
struct CheckLine<'a> {
    name: &'a str,
    result: &'static str,
    score: Score,
    detail: &'a str,
    ms: u32,
}

#[derive(Serialize)]
struct SessionLine<'a> {
    event: &'static str,
    id: Shown<Id>,
    time: Time,
    client: std::net::IpAddr,
    client_port: u16,
    early_talker: bool,
    outcome: &'static str,
    duration_ms: u64,
    trace_id: Option<&'a str>,
    pod: Option<&'a str>,
}

struct Shown<T>(T);
struct Time(SystemTime);
struct Tls<'a>(&'a TlsFacts);
struct Enhanced((u8, u16, u16));
/// Two decimals are enough for a score; a value that JSON cannot hold is 0.
struct Score(f32);
struct Address<'a> {
    mailbox: Option<&'a Mailbox>,
    show: LogAddresses,
}

// === impl Record ===

impl Record {
    /// How much room it takes in the queue: one unit, and one per recipient.
    pub(super) fn weight(&self) -> u32 {
        match self {
            Self::Transaction(transaction) => {
                1u32.saturating_add(u32::try_from(transaction.recipients.len()).unwrap_or(u32::MAX))
            }
            Self::Session(_) => 1,
        }
    }

    pub(super) fn append_line(&self, options: &MailLogOptions, lines: &mut Vec<u8>) {
        let start = lines.len();
        let written = match self {
            Self::Transaction(record) => append(&record.line(options), options.format, lines),
            Self::Session(record) => append(&record.line(options), options.format, lines),
        };
        match written {
            Ok(()) => lines.push(b'\n'),
            Err(error) => {
                lines.truncate(start);
                tracing::error!(%error, "a line of the mail log could not be formatted");
            }
        }
    }
}

fn append(line: &impl Serialize, format: LogFormat, lines: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match format {
        LogFormat::Json => serde_json::to_writer(lines, line),
        LogFormat::Text => {
            let value = serde_json::to_value(line)?;
            append_text(&value, lines).map_err(serde_json::Error::io)
        }
    }
}

/// `key=value` for everything that is there, the time first.
fn append_text(value: &serde_json::Value, lines: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(object) = value.as_object() else { return write!(lines, "{value}") };
    if let Some(time) = object.get("time").and_then(serde_json::Value::as_str) {
        write!(lines, "{time}")?;
    }
    for (key, value) in object.iter().filter(|(key, value)| *key != "time" && !value.is_null()) {
        write!(lines, " {key}={value}")?;
    }
    Ok(())
}

// === impl TransactionRecord ===

impl TransactionRecord {
    fn line<'a>(&'a self, options: &'a MailLogOptions) -> TransactionLine<'a> {
        let show = options.addresses;
        TransactionLine {
            event: "transaction",
            id: Shown(self.id),
            time: Time(self.time),
            client: self.peer.address.ip(),
            client_port: self.peer.address.port(),
            rdns: None,
            helo: self.peer.helo.as_deref(),
            tls: self.peer.tls.as_ref().map(Tls),
            early_talker: self.peer.early_talker,
            from: Address { mailbox: self.envelope.sender.as_ref(), show },
            message_id: self.message_id.as_deref(),
            size: self.size,
            action: self.action.as_str(),
            code: self.code,
            reason: self.reason.as_str(),
            score: Score(self.score),
            checks: self.checks.iter().map(CheckLine::new).collect(),
            identity: self.identity.as_deref(),
            domain_class: self.domain_class.map(Shown),
            upstream: self.upstream.as_deref(),
            upstream_reply: self.upstream_reply.as_deref(),
            revision: self.revision.as_ref().map(|revision| &*revision.0),
            enforced: self.enforced,
            duration_ms: self.duration_ms,
            trace_id: self.trace_id.as_deref(),
            pod: options.pod.as_deref(),
            recipients: self.recipients.iter().map(|recipient| recipient.line(show)).collect(),
        }
    }
}

// === impl RecipientRecord ===

impl RecipientRecord {
    fn line(&self, show: LogAddresses) -> RecipientLine<'_> {
        RecipientLine {
            to: Address { mailbox: Some(&self.to), show },
            domain: self.domain.as_deref(),
            action: self.action.as_str(),
            code: self.code,
            enhanced: Enhanced(self.enhanced),
            reason: self.reason.as_str(),
            greylist: self.greylist.map(Greylist::as_str),
            score: Score(self.score),
        }
    }
}

// === impl SessionRecord ===

impl SessionRecord {
    fn line<'a>(&'a self, options: &'a MailLogOptions) -> SessionLine<'a> {
        SessionLine {
            event: "session",
            id: Shown(self.id),
            time: Time(self.time),
            client: self.client.ip(),
            client_port: self.client.port(),
            early_talker: self.early_talker,
            outcome: self.outcome.as_str(),
            duration_ms: self.duration_ms,
            trace_id: self.trace_id.as_deref(),
            pod: options.pod.as_deref(),
        }
    }
}

// === impl CheckLine ===

impl<'a> CheckLine<'a> {
    fn new(check: &'a CheckResult) -> Self {
        let CheckResult { name, result, score, detail, milliseconds } = check;
        Self { name, result: result.as_str(), score: Score(*score), detail, ms: *milliseconds }
    }
}

// === impl Serialize ===

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::try_from(self.0) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
            Err(_) => serializer.serialize_none(),
        }
    }
}

impl Serialize for Tls<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} {}", self.0.version, self.0.cipher))
    }
}

impl Serialize for Enhanced {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (class, subject, detail) = self.0;
        serializer.collect_str(&format_args!("{class}.{subject}.{detail}"))
    }
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let score = if self.0.is_finite() { self.0 } else { 0.0 };
        // adding 0 turns -0 into 0
        serializer.serialize_f64((f64::from(score) * 100.0).round() / 100.0 + 0.0)
    }
}

impl Serialize for Address<'_> {
    /// The null sender is the empty string in every mode.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(mailbox) = self.mailbox else { return serializer.serialize_str("") };
        match self.show {
            LogAddresses::Full => serializer.collect_str(mailbox),
            LogAddresses::Domain => serializer.serialize_str(&mailbox.domain),
            LogAddresses::Hash => serializer.serialize_str(&hash(mailbox)),
        }
    }
}

fn hash(mailbox: &Mailbox) -> String {
    let domain = mailbox.domain.to_ascii_lowercase();
    let digest =
        Sha256::new().chain_update(&*mailbox.local).chain_update("@").chain_update(domain).finalize();
    digest.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}
