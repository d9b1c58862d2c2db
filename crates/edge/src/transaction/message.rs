//! The message of a transaction: from DATA to the upstream's answer to the dot.

use std::time::{Duration, Instant, SystemTime};

use torwart_core::{Action, Reason};
use torwart_proto::trace::child;
use torwart_smtp::{HeaderEditor, Removals, Violation};
use tracing::{Instrument, Span};

use super::bound::RelayState;
use super::held::fields_on_top;
use super::{RECIPIENTS, Transaction};
use crate::metrics::MessageOutcome;
use crate::received::Trace;
use crate::reply::Said;
use crate::trace;
use crate::upstream::{Final, LAST_REPLY, UpstreamRefusal};

/// From DATA to its reply (RFC 5321 section 4.5.3.2.4).
pub(super) const DATA: Duration = Duration::from_secs(120);
/// From the client's dot to our reply. Clients wait 10 min (RFC 5321 section 4.5.3.2.6).
pub(super) const DOT: Duration = Duration::from_secs(8 * 60);
/// So many bytes of a message are progress. A client that brings less in [`crate::upstream::UpstreamSettings::patience`]
/// is as good as silent: at 800 bytes a second it would hold a connection for hours.
const PROGRESS: usize = 4096;
/// Fields that only a gateway of this kind writes: whoever else does forges them.
const OURS: &str = "X-Torwart-*";

// === impl Transaction ===

impl Transaction {
    /// Brings DATA to the upstream and our header fields on top of the message; or sees to it that the message can be held.
    /// After `Ok` the client may hear 354.
    pub(crate) async fn start_data(&mut self, hostname: &str, esmtp: bool) -> Result<(), Said> {
        let refuse_data = self.refuse_data.clone();
        let received = self.received(hostname, esmtp);
        let removals = Removals::default().field(OURS).authserv_id(hostname);
        let Some(bound) = &mut self.bound else { return Err(Said::no_route()) };
        if let Some(reply) = refuse_data {
            bound.lose(Said::new(reply, Reason::Greylisted));
        }
        if let RelayState::Lost(loss) = &bound.relay {
            return Err(loss.said.clone());
        }
        self.message = child(&self.span, trace::MESSAGE);
        if bound.hold {
            self.start_holding(received, removals)?;
            self.has_message = true;
            self.hear();
            return Ok(());
        }
        let header = received + &fields_on_top(self.id, &[]);
        self.editor = HeaderEditor::new(removals);
        bound
            .begin_again(&self.mail, Instant::now() + RECIPIENTS, &mut self.upstream)
            .instrument(self.message.clone())
            .await;
        let relay = match &mut bound.relay {
            RelayState::Open(relay) => relay,
            RelayState::Lost(loss) => {
                trace::refused(&self.message, &loss.said);
                return Err(loss.said.clone());
            }
            RelayState::Kept(_) | RelayState::Yielded | RelayState::Finishing | RelayState::Delivered => {
                return Err(Said::no_route());
            }
        };
        let outcome = match relay.data(Instant::now() + DATA).await {
            Ok(()) => relay.body(header.as_bytes(), None).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(()) => {
                self.has_message = true;
                self.hear();
                Ok(())
            }
            Err(refusal) => Err(self.lose_upstream(refusal)),
        }
    }

    /// The upstream failed inside the message: what the client hears.
    fn lose_upstream(&mut self, refusal: UpstreamRefusal) -> Said {
        let loss = self.upstream.refused(refusal);
        trace::refused(&self.message, &loss.said);
        self.end_message();
        if let Some(bound) = &mut self.bound {
            bound.lose(loss.clone());
        }
        loss.said
    }

    /// Ends the message's span, if there is one.
    pub(super) fn end_message(&mut self) {
        trace::ended(&std::mem::replace(&mut self.message, Span::none()));
    }

    fn received(&self, hostname: &str, esmtp: bool) -> String {
        let only_recipient = match self.bound.as_ref().map(|bound| bound.accepted.as_slice()) {
            Some([only]) => Some(only),
            _ => None,
        };
        let trace = Trace {
            helo: self.peer.helo.as_deref(),
            client: self.peer.address.ip(),
            hostname,
            esmtp,
            tls: self.peer.tls.is_some(),
            smtputf8: self.envelope.smtputf8,
            id: self.id,
            only_recipient,
            time: SystemTime::now(),
        };
        trace.received()
    }

    /// Passes decoded bytes of the message on, waiting as long as the upstream does not take them. When the message
    /// or the upstream fails, the upstream is let go at once and the rest of the message goes nowhere.
    pub(crate) async fn body(&mut self, decoded: &[u8]) {
        self.size = self.size.saturating_add(decoded.len() as u64);
        self.message_id.receive(decoded);
        let Some(bound) = &mut self.bound else { return };
        if matches!(bound.relay, RelayState::Lost(_)) {
            return;
        }
        if self.size > bound.binding.size_limit {
            let limit = bound.binding.size_limit;
            return self.drop_held(Said::too_large(limit));
        }
        if self.held.is_some() {
            self.hold(decoded).await;
        } else if let RelayState::Open(relay) = &mut bound.relay {
            let mut kept = Vec::new();
            let rest = self.editor.edit(decoded, &mut kept);
            let sent = match relay.body(&kept, self.dot_deadline).await {
                Ok(()) => relay.body(rest, self.dot_deadline).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = sent {
                self.lose_upstream(refusal);
            }
        }
        self.since_heard = self.since_heard.saturating_add(decoded.len());
        if self.since_heard >= PROGRESS {
            self.hear();
        }
    }

    /// The client's dot was seen: from here on our reply has a time limit, with what is still to be written in it.
    pub(crate) fn dot_came(&mut self) {
        self.dot_deadline.get_or_insert(Instant::now() + DOT);
    }

    /// Waits until the client has been silent for too long while others wait for the upstream's connection: then
    /// [`Self::give_way`] is due.
    pub(crate) async fn holds_up_others(&self) {
        match self.bound.as_ref().map(|bound| &bound.relay) {
            Some(RelayState::Open(relay)) => relay.wanted(self.heard).await,
            _ => std::future::pending().await,
        }
    }

    /// Leaves the upstream's connection to others. Before DATA that is undone when the client goes on; in a message
    /// it is not to be undone, and the client hears 451 at its dot.
    pub(crate) fn give_way(&mut self) {
        let Some(bound) = &mut self.bound else { return };
        let RelayState::Open(relay) = &mut bound.relay else { return };
        if !relay.give_way() {
            return;
        }
        if self.has_message {
            let refusal = relay.gave_way();
            self.lose_upstream(refusal);
        } else {
            bound.yield_upstream();
        }
    }

    /// The message must not reach the upstream. Its connection is closed without a dot, or reset before DATA.
    pub(crate) fn spoil(&mut self, violation: Violation) {
        self.drop_held(Said::violation(violation));
    }

    /// What was held back of a header without an end.
    async fn end_editing(&mut self) {
        let mut kept = Vec::new();
        self.editor.finish(&mut kept);
        if let Some(RelayState::Open(relay)) = self.bound.as_mut().map(|bound| &mut bound.relay)
            && !kept.is_empty()
            && let Err(refusal) = relay.body(&kept, self.dot_deadline).await
        {
            self.lose_upstream(refusal);
        }
    }

    /// The client's dot: what the client hears. Once this was called the message may be in the upstream, so it is
    /// not to be dropped before it is done.
    pub(crate) async fn finish(
        &mut self,
        result: Result<(), Violation>,
        size: u64,
    ) -> (Said, MessageOutcome) {
        self.size = size;
        if let Err(violation) = result {
            self.spoil(violation);
        }
        if let Some(limit) = self.bound.as_ref().map(|bound| bound.binding.size_limit)
            && size > limit
        {
            self.drop_held(Said::too_large(limit));
        }
        match self.held.take() {
            Some(held) => self.release(held, size).await,
            None => self.end_editing().await,
        }
        let Some(bound) = &mut self.bound else { return outcome_of(Said::no_route()) };
        let relay = match std::mem::replace(&mut bound.relay, RelayState::Finishing) {
            RelayState::Open(relay) => relay,
            RelayState::Lost(loss) => {
                bound.relay = RelayState::Lost(loss.clone());
                trace::heard(&self.message, &loss.said);
                return outcome_of(loss.said);
            }
            other @ (RelayState::Kept(_)
            | RelayState::Yielded
            | RelayState::Finishing
            | RelayState::Delivered) => {
                bound.relay = other;
                return outcome_of(Said::no_route());
            }
        };
        let deadline = self.dot_deadline.unwrap_or_else(|| Instant::now() + DOT);
        if Instant::now() + LAST_REPLY > deadline {
            relay.abandon();
            let said = Said::too_slow();
            bound.relay = RelayState::Lost(said.clone().into());
            trace::refused(&self.message, &said);
            self.end_message();
            return outcome_of(said);
        }
        let ended = relay.finish(deadline).await;
        trace::count(&self.message, trace::SIZE, usize::try_from(size).unwrap_or(usize::MAX));
        let (refusal, outcome) = match ended {
            Final::Accepted { upstream_reply } => {
                bound.relay = RelayState::Delivered;
                self.upstream.reply = Some(upstream_reply);
                let said = Said::delivered(self.id);
                trace::heard(&self.message, &said);
                self.end_message();
                return (said, MessageOutcome::Delivered);
            }
            Final::Refused(refusal) => (refusal, None),
            Final::Unknown(refusal) => (refusal, Some(MessageOutcome::Unknown)),
        };
        let loss = self.upstream.refused(refusal);
        trace::refused(&self.message, &loss.said);
        bound.relay = RelayState::Lost(loss.clone());
        self.end_message();
        let (said, refused) = outcome_of(loss.said);
        (said, outcome.unwrap_or(refused))
    }
}

fn outcome_of(said: Said) -> (Said, MessageOutcome) {
    let outcome = match said.action {
        Action::Accept | Action::Defer => MessageOutcome::Deferred,
        Action::Reject => MessageOutcome::Rejected,
    };
    (said, outcome)
}
