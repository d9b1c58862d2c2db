//! Why: the closed list behind `reason` in the mail log, in `explain` and in `torwart_verdicts_total`.

/// One word for what decided. Names are part of the contract: add, never rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing spoke against it.
    Accepted,
    /// The client sent a message with bare CR, bare LF or NUL (550 5.5.2).
    BareNewline,
    /// The client went away before its message was complete.
    ClientGone,
    /// DNS block lists alone speak so much against the client that they add up to `rejectAt` (550 5.7.1).
    DnsList,
    /// Greylisting asks the sender to come back (450 4.2.0).
    Greylisted,
    /// An IP range of the policy says Allow, Reject or Defer, or requires TLS (451 4.7.0).
    IpRange,
    /// More than 50 Received fields (554 5.4.6).
    MailLoop,
    /// The message, or its header, is larger than allowed (552 5.3.4), or without end (421 4.3.4).
    MessageTooLarge,
    /// The client does not speak SMTP: an HTTP request, or an endless line (421 4.7.0).
    NotSmtp,
    /// The policy of this recipient's domain could not be read (451 4.3.5).
    PolicyUnavailable,
    /// `recipients.deny`, or not in `recipients.accept` (550 5.1.1).
    RecipientDenied,
    /// The local part tries to route on: `%`, `!` or a quoted `@` (553 5.1.3).
    RecipientRouted,
    /// The domain left the policy a short while ago (451 4.3.5 within `removalGrace`).
    RemovedDomain,
    /// The client gave the transaction up with RSET, EHLO or HELO.
    Reset,
    /// The scores of all checks add up to `rejectAt` or more (550 5.7.1).
    Score,
    /// `senders.deny` (550 5.7.1).
    SenderDenied,
    /// `senders.allow`.
    SenderAllowed,
    /// The process is going down (421 4.3.2).
    Shutdown,
    /// There was no room to hold the message until it is checked, or the disk failed (452 4.3.1).
    SpoolFull,
    /// The client was silent for too long, did not take our replies, or was connected for too long (421 4.4.2).
    Timeout,
    /// Too many commands that brought no mail, or too many transactions in one session (421 4.7.0).
    TooManyCommands,
    /// The client made more errors in one session than are borne (421 4.7.0).
    TooManyErrors,
    /// Too many recipients for this domain's limit (452 4.5.3).
    TooManyRecipients,
    /// The recipient is of another delivery class than the transaction (452 4.5.3).
    OtherClass,
    /// No policy names the recipient's domain (550 5.7.1 relaying denied).
    UnknownDomain,
    /// The verdict is of a newer version than the edge, and gave a reason that the edge does not know.
    Unrecognized,
    /// The upstream took the message, or would have, but its last reply was lost (451).
    UpstreamOutcomeUnknown,
    /// The upstream said 4xx, or 5xx for a fault of our configuration.
    UpstreamDeferred,
    /// The upstream said 5xx for this sender, recipient or message.
    UpstreamRejected,
    /// No upstream could be reached (451 4.4.1).
    UpstreamUnreachable,
    /// All of the upstream's connections were in use (451 4.4.5).
    UpstreamBusy,
    /// The upstream's certificate or STARTTLS did not satisfy `tls.mode: Required` (451 4.7.5).
    UpstreamTls,
    /// The verdict service did not answer (451 4.3.5).
    VerdictUnavailable,
}

impl Reason {
    pub const ALL: [Self; 33] = [
        Self::Accepted,
        Self::BareNewline,
        Self::ClientGone,
        Self::DnsList,
        Self::Greylisted,
        Self::IpRange,
        Self::MailLoop,
        Self::MessageTooLarge,
        Self::NotSmtp,
        Self::PolicyUnavailable,
        Self::RecipientDenied,
        Self::RecipientRouted,
        Self::RemovedDomain,
        Self::Reset,
        Self::Score,
        Self::SenderDenied,
        Self::SenderAllowed,
        Self::Shutdown,
        Self::SpoolFull,
        Self::Timeout,
        Self::TooManyCommands,
        Self::TooManyErrors,
        Self::TooManyRecipients,
        Self::OtherClass,
        Self::UnknownDomain,
        Self::Unrecognized,
        Self::UpstreamOutcomeUnknown,
        Self::UpstreamDeferred,
        Self::UpstreamRejected,
        Self::UpstreamUnreachable,
        Self::UpstreamBusy,
        Self::UpstreamTls,
        Self::VerdictUnavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::BareNewline => "bare_newline",
            Self::ClientGone => "client_gone",
            Self::DnsList => "dns_list",
            Self::Greylisted => "greylisted",
            Self::IpRange => "ip_range",
            Self::MailLoop => "mail_loop",
            Self::MessageTooLarge => "message_too_large",
            Self::NotSmtp => "not_smtp",
            Self::PolicyUnavailable => "policy_unavailable",
            Self::RecipientDenied => "recipient_denied",
            Self::RecipientRouted => "recipient_routed",
            Self::RemovedDomain => "removed_domain",
            Self::Reset => "reset",
            Self::Score => "score",
            Self::SenderDenied => "sender_denied",
            Self::SenderAllowed => "sender_allowed",
            Self::Shutdown => "shutdown",
            Self::SpoolFull => "spool_full",
            Self::Timeout => "timeout",
            Self::TooManyCommands => "too_many_commands",
            Self::TooManyErrors => "too_many_errors",
            Self::TooManyRecipients => "too_many_recipients",
            Self::OtherClass => "other_class",
            Self::UnknownDomain => "unknown_domain",
            Self::Unrecognized => "unrecognized",
            Self::UpstreamOutcomeUnknown => "upstream_outcome_unknown",
            Self::UpstreamDeferred => "upstream_deferred",
            Self::UpstreamRejected => "upstream_rejected",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamBusy => "upstream_busy",
            Self::UpstreamTls => "upstream_tls",
            Self::VerdictUnavailable => "verdict_unavailable",
        }
    }

    /// The reason of this word; `Unrecognized` for one that a newer version may know.
    pub fn from_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Unrecognized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_no_other_is_explained_in_the_docs() {
        let page = include_str!("../../../docs/reasons.md");
        let explained: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let mut missing: Vec<_> = known.iter().filter(|word| !explained.contains(word)).collect();
        missing.extend(explained.iter().filter(|word| !known.contains(word)));
        assert!(missing.is_empty(), "in only one of docs/reasons.md and the code: {missing:?}");
    }
}
