//! What a client would hear of answers that are there already: the transaction's own rules, with an upstream that
//! takes everyone. For whoever asks offline.

use torwart_core::{
    Action, ConnectionAnswer, ListenerTls, Mailbox, MessageAnswer, Reason, RecipientVerdict, Reply,
};
use torwart_smtp::Violation;

use super::asked::{Asked, Binding, next_group};
use crate::reply::Said;
use crate::upstream::RECIPIENT_ACCEPTED;

/// The command that the word is said at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the banner.
    Connection,
    Mail,
    Recipient,
    Data,
    /// The message's end.
    Message,
}

/// What is heard, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foretold {
    pub moment: Moment,
    pub action: Action,
    /// Without the transaction's id.
    pub reply: Reply,
    pub reason: Reason,
}

/// The end of a session that never comes to a recipient.
pub fn foretell_session(answer: &ConnectionAnswer, encrypted: bool) -> Option<Foretold> {
    if let Some((reply, reason)) = &answer.refuse {
        return Some(Foretold::new(Moment::Connection, Said::new(reply.clone(), *reason)));
    }
    // RFC 3207 section 4
    let missing = answer.tls == ListenerTls::Require && !encrypted;
    missing.then(|| {
        let Said { action, reply, reason: _ } = Said::violation(Violation::TlsRequired);
        Foretold { moment: Moment::Mail, action, reply, reason: Reason::IpRange }
    })
}

/// One word for each recipient of one transaction, in that order. `one_recipient` says whose route takes one
/// recipient at a time.
pub fn foretell_recipients(
    recipients: Vec<(Mailbox, RecipientVerdict)>,
    declared_size: Option<u64>,
    one_recipient: impl Fn(&RecipientVerdict) -> bool,
) -> Vec<Foretold> {
    let mut asked: Vec<Asked> =
        recipients.into_iter().map(|(to, verdict)| Asked::judged(to, verdict, declared_size)).collect();
    let mut bound: Option<Binding> = None;
    loop {
        let group = next_group(&mut asked, bound, declared_size);
        let Some(first) = group.first().and_then(|i| asked.get(*i)) else { break };
        let binding =
            *bound.get_or_insert_with(|| first.binding(first.verdict.as_ref().is_some_and(&one_recipient)));
        let count = if binding.one_recipient { 1 } else { group.len() };
        for i in group.into_iter().take(count) {
            if let Some(recipient) = asked.get_mut(i) {
                recipient.said = Some(Said::new(RECIPIENT_ACCEPTED.clone(), Reason::Accepted));
            }
        }
    }
    let taken = |recipient: &&Asked| recipient.said.as_ref().is_some_and(|said| said.reply.code < 400);
    let refuse_data = asked
        .iter()
        .filter(taken)
        .find_map(|recipient| recipient.verdict.as_ref()?.refuse_data.clone())
        .map(|reply| Said::new(reply, Reason::Greylisted));
    asked
        .into_iter()
        .map(|recipient| match (&refuse_data, taken(&&recipient)) {
            (Some(said), true) => Foretold::new(Moment::Data, said.clone()),
            _ => {
                let said = recipient.said.clone().unwrap_or_else(Said::no_route);
                let record = recipient.record(&said);
                Foretold { reason: record.reason, ..Foretold::new(Moment::Recipient, said) }
            }
        })
        .collect()
}

/// The refusal of a message that was held, if it is one.
pub fn foretell_message(answer: &MessageAnswer) -> Option<Foretold> {
    let said = match (answer.action, &answer.reply) {
        (Action::Accept, _) => return None,
        (action, Some(reply)) => Said { action, reply: reply.clone(), reason: answer.reason },
        (_, None) => Said::no_verdict(),
    };
    Some(Foretold::new(Moment::Message, said))
}

// === impl Foretold ===

impl Foretold {
    fn new(moment: Moment, said: Said) -> Self {
        let Said { action, reply, reason } = said;
        Self { moment, action, reply, reason }
    }
}

// === impl Moment ===

impl Moment {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Mail => "mail",
            Self::Recipient => "recipient",
            Self::Data => "data",
            Self::Message => "message",
        }
    }
}
