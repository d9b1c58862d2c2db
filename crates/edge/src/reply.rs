//! Replies of ours, and how they are said: every refusal carries the id of its transaction, so that whoever reads a
//! bounce can quote it.

use std::fmt;

use torwart_core::{Action, Id, Reason, Reply};
use torwart_smtp::Violation;

/// What a recipient or a message hears, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) action: Action,
    pub(crate) reply: Reply,
    pub(crate) reason: Reason,
}

// === impl Said ===

impl Said {
    /// The action follows from the code's first digit.
    pub(crate) fn new(reply: Reply, reason: Reason) -> Self {
        let action = match reply.code {
            ..400 => Action::Accept,
            400..500 => Action::Defer,
            500.. => Action::Reject,
        };
        Self { action, reply, reason }
    }

    /// RFC 3463, X.3.5: our own fault, so the mail waits.
    pub(crate) fn no_verdict() -> Self {
        let reply = Reply::new(451, (4, 3, 5), "Mail cannot be checked right now, please try again later");
        Self::new(reply, Reason::VerdictUnavailable)
    }

    /// The policy accepted without saying where the mail goes.
    pub(crate) fn no_route() -> Self {
        let reply = Reply::new(451, (4, 3, 5), "Mail cannot be routed right now, please try again later");
        Self::new(reply, Reason::PolicyUnavailable)
    }

    /// RFC 5321 section 4.5.3.1.10: the sender brings this recipient again in another transaction.
    pub(crate) fn other_class() -> Self {
        let reply = Reply::new(452, (4, 5, 3), "Please send this recipient's copy separately");
        Self::new(reply, Reason::OtherClass)
    }

    pub(crate) fn one_recipient_only() -> Self {
        let reply = Reply::new(452, (4, 5, 3), "One recipient at a time for this domain");
        Self::new(reply, Reason::TooManyRecipients)
    }

    /// RFC 1870 section 6.2.
    pub(crate) fn too_large(limit: u64) -> Self {
        let reply =
            Reply::new(552, (5, 3, 4), format!("Message is larger than this domain takes ({limit} bytes)"));
        Self::new(reply, Reason::MessageTooLarge)
    }

    /// RFC 3463, X.3.1: no room for the message here; the sender keeps it.
    pub(crate) fn spool_full() -> Self {
        let reply =
            Reply::new(452, (4, 3, 1), "No room to check the message right now, please try again later");
        Self::new(reply, Reason::SpoolFull)
    }

    /// To the dot of a message that nobody has, when the process goes down; 421 comes behind it.
    pub(crate) fn stopping() -> Self {
        Self::new(Reply::new(451, (4, 3, 2), "Going down, please try again"), Reason::Shutdown)
    }

    /// A mail server that goes away each time that it is to be given the message.
    pub(crate) fn upstream_left() -> Self {
        let text = "Connection to the mail server broke, try again later";
        Self::new(Reply::new(451, (4, 4, 2), text), Reason::UpstreamUnreachable)
    }

    /// What was left of the time until our reply was not enough for the mail server's: no dot was sent, so the message is
    /// nowhere.
    pub(crate) fn too_slow() -> Self {
        let text = "Message could not be passed on in time, try again later";
        Self::new(Reply::new(451, (4, 4, 2), text), Reason::UpstreamUnreachable)
    }

    pub(crate) fn delivered(id: Id) -> Self {
        Self::new(Reply::new(250, (2, 0, 0), format!("Ok: delivered as {id}")), Reason::Accepted)
    }

    /// RFC 5321 section 3.8.
    pub(crate) fn shutdown() -> Self {
        Self::new(Reply::new(421, (4, 3, 2), "Going down, connect again"), Reason::Shutdown)
    }

    pub(crate) fn violation(violation: Violation) -> Self {
        let reply = violation.reply();
        let enhanced = reply.enhanced.unwrap_or((u8::try_from(reply.code / 100).unwrap_or(5), 0, 0));
        Self::new(Reply::new(reply.code, enhanced, reply.text()), reason_of(violation))
    }

    /// As it goes to the client: a refusal with the id.
    pub(crate) fn to_smtp(&self, id: Id) -> torwart_smtp::Reply {
        to_smtp(&self.reply, id)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reply, self.reason.as_str())
    }
}

pub(crate) fn to_smtp(reply: &Reply, id: Id) -> torwart_smtp::Reply {
    let text =
        if reply.code < 400 { reply.text.to_string() } else { format!("{} ({})", reply.text, label(id)) };
    torwart_smtp::Reply::new(reply.code, reply.enhanced, text)
}

/// What stands in brackets behind each refusal.
pub(crate) fn label(id: Id) -> String {
    format!("id {id}")
}

/// Only what spoils a message or ends a session comes here; other faults are the session's own business.
fn reason_of(violation: Violation) -> Reason {
    match violation {
        Violation::MessageTooLarge
        | Violation::HeaderTooLarge
        | Violation::DeclaredTooLarge
        | Violation::EndlessMessage => Reason::MessageTooLarge,
        Violation::MailLoop => Reason::MailLoop,
        Violation::BareNewline | Violation::NulByte => Reason::BareNewline,
        Violation::Idle | Violation::SessionTooOld => Reason::Timeout,
        Violation::TooManyIdleCommands | Violation::TooManyTransactions => Reason::TooManyCommands,
        Violation::NotSmtp | Violation::EndlessLine | Violation::ChunkSyntax => Reason::NotSmtp,
        _ => Reason::TooManyErrors,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_the_id_and_a_success_says_its_text_only() {
        let id = Id::from_u128(3);
        let refusal = Said::new(Reply::new(450, (4, 2, 0), "Come back"), Reason::Greylisted).to_smtp(id);
        assert_eq!(refusal.text(), format!("Come back (id {id})"));
        let success = Said::new(Reply::new(250, (2, 1, 5), "Ok"), Reason::Accepted).to_smtp(id);
        assert_eq!(success.text(), "Ok");
        assert!(Said::delivered(id).to_smtp(id).text().ends_with(&id.to_string()));
    }

    #[test]
    fn the_action_follows_the_code() {
        for (code, action) in [(250, Action::Accept), (450, Action::Defer), (552, Action::Reject)] {
            assert_eq!(Said::new(Reply::new(code, (2, 0, 0), ""), Reason::Accepted).action, action);
        }
    }

    #[test]
    fn a_message_s_violation_keeps_its_codes() {
        let said = Said::violation(Violation::BareNewline);
        assert_eq!(
            (said.reply.code, said.reply.enhanced, said.reason),
            (550, (5, 5, 2), Reason::BareNewline)
        );
        assert_eq!(Said::violation(Violation::MailLoop).reason, Reason::MailLoop);
        assert_eq!(Said::violation(Violation::HeaderTooLarge).reply.code, 552);
    }
}
