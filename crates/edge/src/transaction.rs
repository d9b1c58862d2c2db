//! One mail transaction: its verdicts, its relay to the upstream, and what the log says about it.
//!
//! ```text
//!   recipients --> verdict --> class --> upstream: MAIL, RCPT     bound by the first that the upstream accepts
//!   start_data --> upstream: DATA, our header fields
//!   body       --> upstream                                       until it is spoiled, or the relay is lost
//!   finish     --> upstream: the dot                              its reply decides ours
//! ```

mod asked;
mod bound;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use torwart_core::{
    Action, CheckResult, ClassDigest, Delivery, DeliveryResult, Envelope, Id, Mailbox, Peer, Protocol,
    Reason, RecipientsQuestion, Reply, Revision, Route, RouteDigest,
};
use torwart_smtp::Violation;

use self::asked::{Asked, Binding, next_group};
use self::bound::{Bound, RelayState, UpstreamWord, paths};
use crate::edge::Shared;
use crate::log::{RecipientRecord, TransactionRecord};
use crate::message_id::MessageIdScanner;
use crate::metrics::MessageOutcome;
use crate::received::Trace;
use crate::reply::Said;
use crate::upstream::{Final, MailFacts, RelayReply};

/// Lives from the first RCPT to the transaction's end. Dropping it drops the relay, and with it the upstream's
/// connection without a dot.
#[derive(Debug)]
pub(crate) struct Transaction {
    id: Id,
    started: Instant,
    peer: Arc<Peer>,
    envelope: Arc<Envelope>,
    mail: MailFacts,
    recipients: Vec<RecipientRecord>,
    bound: Option<Bound>,
    /// The null sender's greylisting: said at DATA.
    refuse_data: Option<Reply>,
    identity: Option<Arc<str>>,
    checks: Vec<CheckResult>,
    revision: Option<Revision>,
    enforced: bool,
    upstream: UpstreamWord,
    message_id: MessageIdScanner,
    /// The client heard 354.
    has_message: bool,
    /// Bytes of the message so far, without our own header fields.
    size: u64,
    /// When the client last brought the transaction forward, and what came of the message since then.
    heard: Instant,
    since_heard: usize,
    /// When the dot must be answered; `None` until it comes.
    dot_deadline: Option<Instant>,
}

/// How the client's side of a transaction looked when it began.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub(crate) id: Id,
    pub(crate) started: Instant,
    pub(crate) peer: Arc<Peer>,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) hostname: Arc<str>,
}

/// How a transaction ended. `said` is `None` if there was no reply to hear.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) record: TransactionRecord,
    pub(crate) delivery: Option<Delivery>,
}

/// How long the verdict may take for recipients, and for a route. Its own budget for DNS is 3 s.
const VERDICT: Duration = Duration::from_secs(5);
/// From RCPT to its reply over all upstreams. Clients wait 5 min (RFC 5321 section 4.5.3.2.3).
const RECIPIENTS: Duration = Duration::from_secs(60);
/// From DATA to its reply (RFC 5321 section 4.5.3.2.4).
const DATA: Duration = Duration::from_secs(120);
/// From the client's dot to our reply. Clients wait 10 min (RFC 5321 section 4.5.3.2.6).
const DOT: Duration = Duration::from_secs(8 * 60);
/// So many bytes of a message are progress. A client that brings less in [`crate::upstream::UpstreamSettings::patience`]
/// is as good as silent: at 800 bytes a second it would hold a connection for hours.
const PROGRESS: usize = 4096;

// === impl Transaction ===

impl Transaction {
    pub(crate) fn new(beginning: Beginning) -> Self {
        let Beginning { id, started, peer, envelope, hostname } = beginning;
        let mail = MailFacts {
            hello: hostname,
            sender: envelope.sender.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            size: envelope.declared_size,
            eight_bit: envelope.eight_bit,
            smtputf8: envelope.smtputf8,
            client: peer.address.ip(),
        };
        Self {
            id,
            started,
            peer,
            envelope,
            mail,
            recipients: Vec::new(),
            bound: None,
            refuse_data: None,
            identity: None,
            checks: Vec::new(),
            revision: None,
            enforced: true,
            upstream: UpstreamWord::default(),
            message_id: MessageIdScanner::default(),
            has_message: false,
            size: 0,
            heard: started,
            since_heard: 0,
            dot_deadline: None,
        }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// Asks about recipients that arrived together and brings the accepted ones to the upstream; one reply for each,
    /// in that order.
    pub(crate) async fn recipients(&mut self, shared: &Shared, to: Vec<Mailbox>) -> Vec<torwart_smtp::Reply> {
        let deadline = Instant::now() + RECIPIENTS;
        let mut asked = self.judge(shared, to).await;
        for recipient in &mut asked {
            let route = recipient.verdict.as_ref().and_then(|verdict| verdict.route);
            if let (None, Some(route)) = (&recipient.said, route)
                && let Some(refusal) = shared.upstreams.known_refusal(route, || recipient.upstream_path())
            {
                recipient.said = Some(self.upstream_said(recipient, refusal));
            }
        }
        loop {
            let binding = self.bound.as_ref().map(|bound| bound.binding);
            let group = next_group(&mut asked, binding, self.envelope.declared_size);
            if group.is_empty() {
                break;
            }
            self.bring(shared, &mut asked, group, deadline).await;
        }
        self.hear();
        asked.into_iter().map(|recipient| self.settle(recipient)).collect()
    }

    async fn judge(&mut self, shared: &Shared, to: Vec<Mailbox>) -> Vec<Asked> {
        let question = RecipientsQuestion {
            peer: Arc::clone(&self.peer),
            transaction: self.id,
            envelope: Arc::clone(&self.envelope),
            recipients: to.clone(),
            accepted_before: self
                .bound
                .as_ref()
                .map_or(0, |bound| u32::try_from(bound.accepted.len()).unwrap_or(u32::MAX)),
        };
        let answer = match tokio::time::timeout(VERDICT, shared.verdicts.check_recipients(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "recipients could not be judged");
                return to.into_iter().map(Asked::unanswered).collect();
            }
            Err(_) => {
                tracing::warn!("recipients were not judged in time");
                return to.into_iter().map(Asked::unanswered).collect();
            }
        };
        shared.greetings.learn(&answer);
        self.identity = answer.identity.or_else(|| self.identity.take());
        self.checks.retain(|known| answer.checks.iter().all(|check| check.name != known.name));
        self.checks.extend(answer.checks);
        self.revision = Some(answer.revision);
        let mut verdicts = answer.recipients.into_iter();
        let declared_size = self.envelope.declared_size;
        to.into_iter()
            .map(|to| match verdicts.next() {
                Some(verdict) => Asked::judged(to, verdict, declared_size),
                None => Asked::unanswered(to),
            })
            .collect()
    }

    /// Brings recipients of one class to the upstream and settles each of them.
    async fn bring(&mut self, shared: &Shared, asked: &mut [Asked], group: Vec<usize>, deadline: Instant) {
        let outcome = match &mut self.bound {
            Some(bound) => {
                bound.begin_again(&self.mail, deadline, &mut self.upstream).await;
                bound.more_recipients(asked, &group, deadline, &mut self.upstream).await
            }
            None => self.first_recipients(shared, asked, &group, deadline).await,
        };
        match outcome {
            Ok((settled, replies)) => {
                let mut replies = replies.into_iter();
                for &i in group.iter().take(settled) {
                    let Some(recipient) = asked.get_mut(i) else { continue };
                    recipient.said = Some(match replies.next() {
                        Some(reply) => self.upstream_said(recipient, reply),
                        None => Said::no_route(),
                    });
                }
            }
            Err(said) => {
                for i in group {
                    if let Some(recipient) = asked.get_mut(i) {
                        recipient.said = Some(said.clone());
                    }
                }
            }
        }
    }

    /// Opens the relay. If the upstream accepts one of them, the transaction is bound from here on.
    async fn first_recipients(
        &mut self,
        shared: &Shared,
        asked: &[Asked],
        group: &[usize],
        deadline: Instant,
    ) -> Result<(usize, Vec<RelayReply>), Said> {
        let first =
            group.first().and_then(|&i| asked.get(i)).and_then(|recipient| recipient.verdict.as_ref());
        let (Some(class), Some(digest), size_limit) = (
            first.and_then(|verdict| verdict.class),
            first.and_then(|verdict| verdict.route),
            first.map_or(0, |verdict| verdict.size_limit),
        ) else {
            return Err(Said::no_route());
        };
        let route = fetch(shared, digest).await?;
        let one_recipient = route.protocol == Protocol::Lmtp;
        let count = if one_recipient { 1 } else { group.len() };
        let paths = paths(asked, group.get(..count).unwrap_or(group));
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let (relay, replies) = match shared.upstreams.begin(&route, &self.mail, &paths, deadline).await {
            Ok(begun) => begun,
            Err(refusal) => return Err(self.upstream.refused(refusal)),
        };
        self.upstream.name = Some(relay.upstream().to_owned());
        if replies.iter().any(|reply| reply.accepted) {
            self.bound = Some(Bound {
                binding: Binding { class, size_limit, one_recipient },
                route,
                upstreams: Arc::clone(&shared.upstreams),
                relay: RelayState::Open(relay),
                accepted: Vec::new(),
                paths: Vec::new(),
                score: f32::MIN,
            });
        } else {
            relay.abandon();
        }
        Ok((count, replies))
    }

    fn upstream_said(&mut self, recipient: &Asked, reply: RelayReply) -> Said {
        let RelayReply { accepted, client_reply, upstream_reply, reason } = reply;
        self.upstream.reply = Some(upstream_reply);
        if accepted && let Some(bound) = &mut self.bound {
            bound.accepted.push(recipient.to.clone());
            bound.paths.push(recipient.upstream_path());
            let score = recipient.verdict.as_ref().map_or(0.0, |verdict| verdict.score);
            bound.score = bound.score.max(score);
        }
        Said::new(client_reply, reason)
    }

    /// Writes one recipient's end into the record and gives its reply.
    fn settle(&mut self, recipient: Asked) -> torwart_smtp::Reply {
        let said = recipient.said.clone().unwrap_or_else(Said::no_route);
        self.recipients.push(recipient.record(&said));
        if let Some(verdict) = recipient.verdict {
            self.enforced &= verdict.monitored.is_none();
            if said.reply.code < 400 {
                self.refuse_data = self.refuse_data.take().or(verdict.refuse_data);
            }
        }
        said.to_smtp(self.id)
    }

    /// The recipients that have been named so far.
    pub(crate) fn named(&self) -> usize {
        self.recipients.len()
    }

    /// Only so many of them heard their reply: the session ended before the others'.
    pub(crate) fn forget_unanswered(&mut self, answered: usize) {
        self.recipients.truncate(answered);
    }

    /// Brings DATA to the upstream and our header fields on top of the message. After `Ok` the client may hear 354.
    pub(crate) async fn start_data(&mut self, hostname: &str, esmtp: bool) -> Result<(), Said> {
        let refuse_data = self.refuse_data.clone();
        let trace = self.trace(hostname, esmtp);
        let Some(bound) = &mut self.bound else { return Err(Said::no_route()) };
        if let Some(reply) = refuse_data {
            bound.lose(Said::new(reply, Reason::Greylisted));
        }
        bound.begin_again(&self.mail, Instant::now() + RECIPIENTS, &mut self.upstream).await;
        let relay = match &mut bound.relay {
            RelayState::Open(relay) => relay,
            RelayState::Lost(said) => return Err(said.clone()),
            RelayState::Yielded | RelayState::Spent(_) => return Err(Said::no_route()),
        };
        let outcome = match relay.data(Instant::now() + DATA).await {
            Ok(()) => relay.body(trace.as_bytes(), None).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(()) => {
                self.has_message = true;
                self.hear();
                Ok(())
            }
            Err(refusal) => {
                let said = self.upstream.refused(refusal);
                bound.lose(said.clone());
                Err(said)
            }
        }
    }

    fn trace(&self, hostname: &str, esmtp: bool) -> String {
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
            id: self.id,
            only_recipient,
            time: SystemTime::now(),
        };
        trace.header_fields()
    }

    /// Passes decoded bytes of the message on, waiting as long as the upstream does not take them. When the message
    /// or the upstream fails, the upstream is let go at once and the rest of the message goes nowhere.
    pub(crate) async fn body(&mut self, decoded: &[u8]) {
        self.size = self.size.saturating_add(decoded.len() as u64);
        self.message_id.receive(decoded);
        let Some(bound) = &mut self.bound else { return };
        let RelayState::Open(relay) = &mut bound.relay else { return };
        if self.size > bound.binding.size_limit {
            let limit = bound.binding.size_limit;
            return bound.lose(Said::too_large(limit));
        }
        if let Err(refusal) = relay.body(decoded, self.dot_deadline).await {
            bound.lose(self.upstream.refused(refusal));
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

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.since_heard = 0;
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
            bound.lose(self.upstream.refused(refusal));
        } else {
            bound.yield_upstream();
        }
    }

    /// The message must not reach the upstream. Its connection is closed without a dot.
    pub(crate) fn spoil(&mut self, violation: Violation) {
        if let Some(bound) = &mut self.bound {
            bound.lose(Said::violation(violation));
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
        let Some(bound) = &mut self.bound else { return outcome_of(Said::no_route()) };
        if size > bound.binding.size_limit && matches!(bound.relay, RelayState::Open(_)) {
            bound.lose(Said::too_large(bound.binding.size_limit));
        }
        let relay = match std::mem::replace(&mut bound.relay, RelayState::Spent(DeliveryResult::Deferred)) {
            RelayState::Open(relay) => relay,
            RelayState::Lost(said) => {
                bound.relay = RelayState::Lost(said.clone());
                return outcome_of(said);
            }
            RelayState::Yielded | RelayState::Spent(_) => return outcome_of(Said::no_route()),
        };
        let deadline = self.dot_deadline.unwrap_or_else(|| Instant::now() + DOT);
        match relay.finish(deadline).await {
            Final::Accepted { upstream_reply } => {
                bound.relay = RelayState::Spent(DeliveryResult::Delivered);
                self.upstream.reply = Some(upstream_reply);
                (Said::delivered(self.id), MessageOutcome::Delivered)
            }
            Final::Refused(refusal) => {
                let said = self.upstream.refused(refusal);
                if let (Some(bound), Action::Reject) = (&mut self.bound, said.action) {
                    bound.relay = RelayState::Spent(DeliveryResult::Rejected);
                }
                outcome_of(said)
            }
            Final::Unknown(refusal) => (self.upstream.refused(refusal), MessageOutcome::Unknown),
        }
    }

    /// Ends the transaction. `said` is the last word: to its DATA, to its dot, or the 421 that ended the session;
    /// without one the client gave it up, or no recipient was accepted.
    pub(crate) fn end(mut self, said: Option<&Said>, reason: Reason) -> Ended {
        let delivery = self.delivery();
        if let Some(bound) = &mut self.bound {
            bound.lose(Said::no_route());
        }
        let (action, code, reason) = match (said, &self.bound, self.recipients.first()) {
            (Some(said), _, _) => (said.action, Some(said.reply.code), said.reason),
            (None, None, Some(first)) => (first.action, Some(first.code), first.reason),
            (None, _, _) => (Action::Defer, None, reason),
        };
        let score = self.recipients.iter().map(|recipient| recipient.score).fold(0.0, f32::max);
        let class: Option<ClassDigest> = self.bound.as_ref().map(|bound| bound.binding.class);
        let record = TransactionRecord {
            id: self.id,
            time: SystemTime::now(),
            peer: self.peer,
            envelope: self.envelope,
            message_id: self.message_id.into_found(),
            size: self.has_message.then_some(self.size),
            action,
            code,
            reason,
            score,
            checks: self.checks,
            identity: self.identity,
            domain_class: class,
            upstream: self.upstream.name,
            upstream_reply: self.upstream.reply,
            revision: self.revision,
            enforced: self.enforced,
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            recipients: self.recipients,
        };
        Ended { record, delivery }
    }

    /// What good senders earn their trust with: only where the upstream had a last word.
    fn delivery(&self) -> Option<Delivery> {
        let bound = self.bound.as_ref()?;
        let RelayState::Spent(result) = bound.relay else { return None };
        Some(Delivery {
            peer: Arc::clone(&self.peer),
            transaction: self.id,
            envelope: Arc::clone(&self.envelope),
            recipients: bound.accepted.clone(),
            route: bound.route.digest,
            score: if bound.score.is_finite() && bound.score > f32::MIN { bound.score } else { 0.0 },
            result,
        })
    }
}

async fn fetch(shared: &Shared, digest: RouteDigest) -> Result<Arc<Route>, Said> {
    match tokio::time::timeout(VERDICT, shared.verdicts.route(digest)).await {
        Ok(Ok(route)) => Ok(route),
        Ok(Err(error)) => {
            tracing::warn!(%error, route = %digest, "the route could not be fetched");
            Err(Said::no_verdict())
        }
        Err(_) => {
            tracing::warn!(route = %digest, "the route was not fetched in time");
            Err(Said::no_verdict())
        }
    }
}

fn outcome_of(said: Said) -> (Said, MessageOutcome) {
    let outcome = match said.action {
        Action::Accept | Action::Defer => MessageOutcome::Deferred,
        Action::Reject => MessageOutcome::Rejected,
    };
    (said, outcome)
}
