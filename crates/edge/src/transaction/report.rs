//! What the verdict is told when a transaction ends: one report for each that was to reach an upstream, about how it
//! went there. What the client or we did says nothing of the upstream, and nothing is told of it.
//!
//! | what happened | told | recipients |
//! |---|---|---|
//! | 250 to the dot | `Delivered` | those accepted |
//! | 550-554 to the dot | `Rejected` | those accepted |
//! | the answer to the dot was lost | `Unknown` | those accepted |
//! | 4xx to MAIL, RCPT or the dot, 421, every connection in use, a 5xx that `softBounce` does not believe | `Deferred` | those accepted and those that heard 4xx for it |
//! | no connection, no TLS, a fault of our configuration, no usable answer, a connection that broke before the dot | `Unreachable` | the same |
//! | 550-554 to MAIL or RCPT, now or remembered: a server that knows its senders and recipients is well | nothing | |
//! | RSET, QUIT or silence before the dot, a message that was spoiled or too large, greylisting at DATA | nothing | |
//!
//! A recipient that was refused or deferred beside accepted ones is no end of the transaction: the upstream's last word
//! on those is.

use std::sync::Arc;

use torwart_core::{Delivery, DeliveryResult, Mailbox, RouteDigest};
use torwart_proto::convert::MOST_RECIPIENTS;

use super::Transaction;
use super::asked::Asked;
use super::bound::{Bound, Loss, RelayState, UpstreamWord};

/// Recipients that heard 4xx because of the upstream of one route.
#[derive(Debug)]
pub(super) struct Trouble {
    route: RouteDigest,
    /// At most [`MOST_RECIPIENTS`]: a client may go on naming recipients to a dead upstream.
    recipients: Vec<Mailbox>,
    score: f32,
    result: DeliveryResult,
    word: UpstreamWord,
}

// === impl Trouble ===

impl Trouble {
    /// The trouble after one more recipient met with `result`. News of another route takes the place of the old.
    pub(super) fn grown(
        before: Option<Self>,
        recipient: &Asked,
        result: DeliveryResult,
        word: &UpstreamWord,
    ) -> Option<Self> {
        let Some((verdict, route)) =
            recipient.verdict.as_ref().and_then(|verdict| Some((verdict, verdict.route?)))
        else {
            return before;
        };
        let mut trouble = before.filter(|known| known.route == route).unwrap_or_else(|| Self {
            route,
            recipients: Vec::new(),
            score: f32::MIN,
            result,
            word: UpstreamWord::default(),
        });
        if trouble.recipients.len() < MOST_RECIPIENTS {
            trouble.recipients.push(recipient.to.clone());
        }
        trouble.score = trouble.score.max(verdict.score);
        trouble.result = result;
        trouble.word = word.clone();
        Some(trouble)
    }
}

// === impl Transaction ===

impl Transaction {
    /// What is told of the transaction as it stands; see the table above.
    pub(super) fn report(&self) -> Option<Delivery> {
        let (route, recipients, score, result, word) = match (&self.bound, &self.trouble) {
            (Some(bound), trouble) => {
                let result = result_of(&bound.relay)?;
                let recipients = recipients_of(bound, trouble.as_ref(), result);
                (bound.route.digest, recipients, bound.score, result, &self.upstream)
            }
            (None, Some(trouble)) => {
                (trouble.route, trouble.recipients.clone(), trouble.score, trouble.result, &trouble.word)
            }
            (None, None) => return None,
        };
        Some(Delivery {
            peer: Arc::clone(&self.peer),
            transaction: self.id,
            envelope: Arc::clone(&self.envelope),
            recipients,
            route,
            score: if score.is_finite() && score > f32::MIN { score } else { 0.0 },
            result,
            upstream: word.name.as_deref().map(Arc::from),
            upstream_reply: word.reply.as_deref().map(shortened),
        })
    }
}

fn result_of(relay: &RelayState) -> Option<DeliveryResult> {
    match relay {
        RelayState::Open(_) | RelayState::Kept(_) | RelayState::Yielded => None,
        RelayState::Lost(Loss { said: _, result }) => *result,
        RelayState::Finishing => Some(DeliveryResult::Unknown),
        RelayState::Delivered => Some(DeliveryResult::Delivered),
    }
}

/// Those that were deferred belong together with those whose message was deferred later.
fn recipients_of(bound: &Bound, trouble: Option<&Trouble>, result: DeliveryResult) -> Vec<Mailbox> {
    let waiting = match result {
        DeliveryResult::Deferred | DeliveryResult::Unreachable => trouble
            .filter(|trouble| trouble.route == bound.route.digest)
            .map_or(&[][..], |trouble| &trouble.recipients),
        DeliveryResult::Delivered | DeliveryResult::Rejected | DeliveryResult::Unknown => &[],
    };
    bound.accepted.iter().chain(waiting).take(MOST_RECIPIENTS).cloned().collect()
}

fn shortened(reply: &str) -> Arc<str> {
    match reply.char_indices().nth(Delivery::LONGEST_REPLY) {
        Some((end, _)) => reply.get(..end).unwrap_or_default().into(),
        None => reply.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reply_is_cut_at_a_character() {
        assert_eq!(&*shortened("451 4.7.1 later"), "451 4.7.1 later");
        let long = "ü".repeat(Delivery::LONGEST_REPLY + 1);
        assert_eq!(shortened(&long).chars().count(), Delivery::LONGEST_REPLY);
    }
}
