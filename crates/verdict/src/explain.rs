//! What would be said of a mail, and why: the engine's own answers, asked in the order of a session, with what they
//! were made of. Nothing is judged here.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use torwart_core::{
    Action, BodyPart, ConnectionAnswer, ConnectionQuestion, MessageAnswer, MessageQuestion, RecipientsAnswer,
    RecipientsQuestion, Route, Unavailable, Verdicts,
};
use torwart_policy::decide::{
    Facts, GreylistWord, Held, Level, Listed, Screened, Screening, Step, connection_range,
};
use torwart_policy::greylist::normalise_sender;
use torwart_policy::model::{Enforcement, RangeAction, Scoring};

use crate::clock::{Clock, ManualClock};
use crate::engine::Engine;

/// All that one mail would hear.
#[derive(Debug)]
pub struct Explanation {
    pub connection: ConnectionAnswer,
    /// The MailGateway's range that the client is in.
    pub connection_range: Option<RangeSeen>,
    /// `None` if the connection is refused.
    pub recipients: Option<Explained>,
    /// The same mail once the longest wait is over, if any recipient has to wait.
    pub retry: Option<Retry>,
    /// If there is a message, and an accepted recipient for whom messages are checked, at the first try or the retry.
    pub message: Option<MessageAnswer>,
}

/// A message, or its beginning, with CRLF at every line's end.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub beginning: Vec<u8>,
    /// Of the whole.
    pub size: u64,
}

/// What was said of the recipients, and why.
#[derive(Debug)]
pub struct Explained {
    pub answer: RecipientsAnswer,
    /// One for each recipient, in that order.
    pub why: Vec<Why>,
}

#[derive(Debug)]
pub struct Retry {
    /// Seconds after the first try.
    pub after: u32,
    pub answer: RecipientsAnswer,
    /// One for each recipient, in that order: where it goes then.
    pub routes: Vec<Option<Arc<Route>>>,
}

/// What led to one recipient's verdict.
#[derive(Debug)]
pub struct Why {
    pub step: Step,
    /// The IP range that holds for this recipient.
    pub range: Option<RangeSeen>,
    /// The entry of a list that decided.
    pub listed: Option<ListSeen>,
    /// The policy's thresholds; `None` where no MailDomain names the recipient.
    pub scoring: Option<Scoring>,
    pub enforcement: Option<Enforcement>,
    pub max_recipients: Option<u32>,
    /// If greylisting was asked.
    pub greylist: Option<GreylistSeen>,
    /// Where an accepted mail goes, and one that greylisting has wait.
    pub route: Option<Arc<Route>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSeen {
    pub name: Arc<str>,
    pub level: Level,
    pub action: RangeAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListSeen {
    /// Below `spec`, as in `senders.deny`.
    pub list: &'static str,
    pub level: Level,
    /// As the policy writes it; `None` where the list does not name the recipient.
    pub pattern: Option<String>,
}

/// The key that greylisting remembers the mail by, and what it says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreylistSeen {
    /// The client, as in `network:192.0.2.0/24`; the best first.
    pub identities: Vec<String>,
    /// The sender, without what changes from mail to mail; empty for the null sender.
    pub sender: String,
    /// What a new sender waits, in seconds.
    pub delay: u32,
    /// What this one waits, in seconds; `None` if the store has no answer.
    pub wait: Option<u32>,
    /// Good for one delivery only.
    pub single_use: bool,
}

/// Asks `engine`, whose clock must be `clock`, and after the longest wait, to which it sets the clock, again.
///
/// # Errors
/// If there is no policy.
pub async fn explain(
    engine: &Engine,
    clock: &ManualClock,
    question: &RecipientsQuestion,
    message: Option<Message>,
) -> Result<Explanation, Unavailable> {
    let connection = engine.check_connection(ConnectionQuestion { peer: Arc::clone(&question.peer) }).await?;
    let policy = engine.policy_in_force()?;
    let range = connection_range(&policy, question.peer.address.ip(), clock.now());
    let connection_range = range.map(|range| RangeSeen::of(Held { level: Level::Gateway, range }));
    if connection.refuse.is_some() {
        return Ok(Explanation {
            connection,
            connection_range,
            recipients: None,
            retry: None,
            message: None,
        });
    }
    let (answer, mut why) = engine.judged(question.clone(), reasons).await?;
    for (why, route) in why.iter_mut().zip(routes(engine, &answer).await?) {
        why.route = route;
    }
    let wait = why.iter().filter_map(|why| why.greylist.as_ref()?.wait).max().filter(|wait| *wait > 0);
    let retry = match wait {
        Some(after) => {
            clock.advance(i64::from(after));
            let answer = engine.check_recipients(question.clone()).await?;
            Some(Retry { after, routes: routes(engine, &answer).await?, answer })
        }
        None => None,
    };
    let message = match message {
        Some(message) => {
            let answers = [Some(&answer), retry.as_ref().map(|retry| &retry.answer)];
            checked(engine, question, answers.into_iter().flatten(), message).await?
        }
        None => None,
    };
    Ok(Explanation {
        connection,
        connection_range,
        recipients: Some(Explained { answer, why }),
        retry,
        message,
    })
}

/// Asks about the message as an edge would that heard the first of `answers` which accepts a recipient.
async fn checked<'a>(
    engine: &Engine,
    question: &RecipientsQuestion,
    answers: impl Iterator<Item = &'a RecipientsAnswer>,
    message: Message,
) -> Result<Option<MessageAnswer>, Unavailable> {
    for answer in answers {
        let named = question.recipients.iter().zip(&answer.recipients);
        let taken =
            named.filter(|(_, verdict)| verdict.action == Action::Accept && verdict.refuse_data.is_none());
        let (recipients, verdicts): (Vec<_>, Vec<_>) = taken.unzip();
        if verdicts.iter().any(|verdict| verdict.hold_message) {
            let about = MessageQuestion {
                peer: Arc::clone(&question.peer),
                transaction: question.transaction,
                envelope: Arc::clone(&question.envelope),
                recipients: recipients.into_iter().cloned().collect(),
                checks: answer.checks.clone(),
            };
            let chunks = message.beginning.chunks(BodyPart::LONGEST_CHUNK);
            let parts = chunks.map(|chunk| BodyPart::Chunk(chunk.to_vec()));
            let parts: Vec<_> = parts.chain([BodyPart::End { size: message.size }]).collect();
            return engine.check_message(about, Box::new(parts.into_iter())).await.map(Some);
        }
    }
    Ok(None)
}

async fn routes(engine: &Engine, answer: &RecipientsAnswer) -> Result<Vec<Option<Arc<Route>>>, Unavailable> {
    let mut routes = Vec::with_capacity(answer.recipients.len());
    for verdict in &answer.recipients {
        routes.push(match verdict.route {
            Some(digest) => Some(engine.route(digest).await?),
            None => None,
        });
    }
    Ok(routes)
}

fn reasons(facts: &Facts<'_>, screening: &Screening<'_>, words: &[Option<GreylistWord>]) -> Vec<Why> {
    let groups = screening.groups(facts);
    let mut all: Vec<Why> = screening.recipients.iter().map(Why::of).collect();
    for group in &groups {
        for member in &group.members {
            let wait = match words.get(*member) {
                Some(Some(GreylistWord::Judged(judged))) => Some(judged.wait),
                Some(Some(GreylistWord::Failed | GreylistWord::Overloaded) | None) | None => None,
            };
            if let Some(why) = all.get_mut(*member) {
                why.greylist = Some(GreylistSeen {
                    identities: group.identities.iter().map(ToString::to_string).collect(),
                    sender: normalise_sender(facts.sender),
                    delay: group.params.delay(),
                    wait,
                    single_use: group.params.single_use(),
                });
            }
        }
    }
    all
}

// === impl Why ===

impl Why {
    fn of(screened: &Screened<'_>) -> Self {
        let Screened {
            target,
            deliver_to: _,
            finding: _,
            score: _,
            teaches: _,
            suspect: _,
            step,
            range,
            listed,
        } = screened;
        Self {
            step: *step,
            range: range.map(RangeSeen::of),
            listed: listed.map(ListSeen::of),
            scoring: target.map(|target| target.domain.scoring),
            enforcement: target.map(|target| target.enforcement),
            max_recipients: target.map(|target| target.domain.max_recipients),
            greylist: None,
            route: None,
        }
    }
}

// === impl RangeSeen ===

impl RangeSeen {
    fn of(held: Held<'_>) -> Self {
        let Held { level, range } = held;
        Self { name: Arc::clone(&range.name), level, action: range.action }
    }
}

// === impl ListSeen ===

impl ListSeen {
    fn of(listed: Listed<'_>) -> Self {
        let (list, level, pattern) = match listed {
            Listed::AllowedSender(level, pattern) => ("senders.allow", level, Some(pattern)),
            Listed::DeniedSender(level, pattern) => ("senders.deny", level, Some(pattern)),
            Listed::DeniedRecipient(pattern) => ("recipients.deny", Level::Domain, Some(pattern)),
            Listed::UnlistedRecipient => ("recipients.accept", Level::Domain, None),
            Listed::ExemptRecipient(pattern) => ("recipients.exempt", Level::Domain, Some(pattern)),
        };
        Self { list, level, pattern: pattern.map(ToString::to_string) }
    }
}
