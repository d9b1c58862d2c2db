//! One mail transaction: its verdicts, its relay to the upstream, and what the log says about it.
//!
//! ```text
//!   recipients --> verdict --> class --> upstream: MAIL, RCPT     bound by the first that the upstream accepts
//!   start_data --> upstream: DATA, our header fields
//!   body       --> upstream                                       until it is spoiled, or the relay is lost
//!   finish     --> upstream: the dot                              its reply decides ours
//! ```
//!
//! Where the verdict wants to see the message first, it is held: see `held.rs`.

mod asked;
mod bound;
mod foretold;
mod held;
mod message;
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use torwart_core::{
    Action, CheckResult, ClassDigest, Delivery, DeliveryResult, Envelope, Id, Mailbox, Peer, Protocol,
    Reason, RecipientsQuestion, Reply, Revision, Route, RouteDigest,
};
use torwart_proto::trace::{attribute, child, fail, trace_id};
use torwart_smtp::{HeaderEditor, Removals};
use tracing::{Instrument, Span};

use self::asked::{Asked, Binding, next_group};
use self::bound::{Bound, Loss, RelayState, UpstreamWord, paths};
pub use self::foretold::{Foretold, Moment, foretell_message, foretell_recipients, foretell_session};
use self::held::{Held, Means};
use self::report::Trouble;
use crate::edge::Shared;
use crate::log::{RecipientRecord, TransactionRecord};
use crate::message_id::MessageIdScanner;
use crate::reply::Said;
use crate::trace;
use crate::upstream::{ClientFacts, MailFacts, RelayReply};

/// Lives from the first RCPT to the transaction's end. Dropping it drops the relay, and with it the upstream's
/// connection without a dot.
#[derive(Debug)]
pub(crate) struct Transaction {
    id: Id,
    started: Instant,
    /// None if the session is not traced; the message's also while there is none.
    span: Span,
    message: Span,
    peer: Arc<Peer>,
    envelope: Arc<Envelope>,
    mail: MailFacts,
    recipients: Vec<RecipientRecord>,
    bound: Option<Bound>,
    trouble: Option<Trouble>,
    /// The null sender's greylisting: said at DATA.
    refuse_data: Option<Reply>,
    identity: Option<Arc<str>>,
    checks: Vec<CheckResult>,
    /// With the message's checks; `None` before they have spoken.
    score: Option<f32>,
    revision: Option<Revision>,
    enforced: bool,
    upstream: UpstreamWord,
    message_id: MessageIdScanner,
    /// Of a message that streams.
    editor: HeaderEditor,
    held: Option<Box<Held>>,
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
    /// The client said EHLO rather than HELO.
    pub(crate) esmtp: bool,
    pub(crate) span: Span,
}

/// How a transaction ended. `said` is `None` if there was no reply to hear.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) record: TransactionRecord,
    /// What the verdict is told, if anything.
    pub(crate) delivery: Option<Delivery>,
    pub(crate) span: Span,
}

/// How long the verdict may take for recipients, and for a route. Its own budget for DNS is 3 s.
const VERDICT: Duration = Duration::from_secs(5);
/// From RCPT to its reply over all upstreams. Clients wait 5 min (RFC 5321 section 4.5.3.2.3).
const RECIPIENTS: Duration = Duration::from_secs(60);

// === impl Transaction ===

impl Transaction {
    pub(crate) fn new(beginning: Beginning) -> Self {
        let Beginning { id, started, peer, envelope, hostname, esmtp, span } = beginning;
        let mail = MailFacts {
            hello: hostname,
            sender: envelope.sender.as_ref().map(ToString::to_string).unwrap_or_default().into(),
            size: envelope.declared_size,
            eight_bit: envelope.eight_bit,
            smtputf8: envelope.smtputf8,
            client: Arc::new(ClientFacts { address: peer.address, helo: peer.helo.clone(), esmtp }),
        };
        Self {
            id,
            started,
            span,
            message: Span::none(),
            peer,
            envelope,
            mail,
            recipients: Vec::new(),
            bound: None,
            trouble: None,
            refuse_data: None,
            identity: None,
            checks: Vec::new(),
            score: None,
            revision: None,
            enforced: true,
            upstream: UpstreamWord::default(),
            message_id: MessageIdScanner::default(),
            editor: HeaderEditor::new(Removals::default()),
            held: None,
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
            // Who does not exist need not come again: that goes before greylisting.
            let open = recipient.said.as_ref().is_none_or(|said| said.reason == Reason::Greylisted);
            if let (true, Some(route)) = (open, route)
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
        let span = trace::question(&self.span, "recipients");
        trace::count(&span, trace::COUNT, to.len());
        let asking = tokio::time::timeout(VERDICT, shared.verdicts.check_recipients(question));
        let answer = match asking.instrument(span.clone()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                // the verdict, or its client, has said why, and not for each mail
                fail(&span, "no verdict");
                tracing::debug!(%error, "recipients could not be judged");
                return to.into_iter().map(Asked::unanswered).collect();
            }
            Err(_) => {
                fail(&span, "no answer in time");
                tracing::warn!("recipients were not judged in time");
                return to.into_iter().map(Asked::unanswered).collect();
            }
        };
        drop(span);
        shared.greetings.learn(&answer);
        self.identity = answer.identity.or_else(|| self.identity.take());
        self.note_checks(answer.checks);
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
                let span = child(&self.span, trace::RECIPIENTS);
                trace::count(&span, trace::COUNT, group.len());
                let bringing = async {
                    bound.begin_again(&self.mail, deadline, &mut self.upstream).await;
                    bound.more_recipients(asked, &group, deadline, &mut self.upstream).await
                };
                let outcome = bringing.instrument(span.clone()).await;
                match &outcome {
                    Ok((_, replies)) => count_accepted(&span, replies),
                    Err(loss) => trace::refused(&span, &loss.said),
                }
                outcome
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
            Err(Loss { said, result }) => {
                for i in group {
                    let Some(recipient) = asked.get_mut(i) else { continue };
                    recipient.said = Some(said.clone());
                    self.note_trouble(recipient, result);
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
    ) -> Result<(usize, Vec<RelayReply>), Loss> {
        let first =
            group.first().and_then(|&i| asked.get(i)).and_then(|recipient| recipient.verdict.as_ref());
        let (Some(class), Some(digest), size_limit) = (
            first.and_then(|verdict| verdict.class),
            first.and_then(|verdict| verdict.route),
            first.map_or(0, |verdict| verdict.size_limit),
        ) else {
            return Err(Said::no_route().into());
        };
        let route = self.fetch(shared, digest).await?;
        let one_recipient = route.protocol == Protocol::Lmtp;
        let count = if one_recipient { 1 } else { group.len() };
        let paths = paths(asked, group.get(..count).unwrap_or(group));
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let span = child(&self.span, trace::RECIPIENTS);
        trace::count(&span, trace::COUNT, paths.len());
        let beginning = shared.upstreams.begin(&route, &self.mail, &paths, deadline);
        let (relay, replies) = match beginning.instrument(span.clone()).await {
            Ok(begun) => begun,
            Err(refusal) => {
                let loss = self.upstream.refused(refusal);
                trace::refused(&span, &loss.said);
                return Err(loss);
            }
        };
        count_accepted(&span, &replies);
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
                hold: false,
                means: Means::of(shared),
            });
        } else {
            relay.abandon();
        }
        Ok((count, replies))
    }

    async fn fetch(&self, shared: &Shared, digest: RouteDigest) -> Result<Arc<Route>, Said> {
        let span = child(&self.span, trace::ROUTE);
        match tokio::time::timeout(VERDICT, shared.verdicts.route(digest)).instrument(span.clone()).await {
            Ok(Ok(route)) => Ok(route),
            Ok(Err(error)) => {
                fail(&span, "no route");
                tracing::debug!(%error, route = %digest, "the route could not be fetched");
                Err(Said::no_verdict())
            }
            Err(_) => {
                fail(&span, "no answer in time");
                tracing::warn!(route = %digest, "the route was not fetched in time");
                Err(Said::no_verdict())
            }
        }
    }

    fn upstream_said(&mut self, recipient: &Asked, reply: RelayReply) -> Said {
        let RelayReply { accepted, client_reply, upstream_reply, reason, result } = reply;
        self.upstream.reply = Some(upstream_reply);
        self.note_trouble(recipient, result);
        if accepted && let Some(bound) = &mut self.bound {
            bound.accepted.push(recipient.to.clone());
            bound.paths.push(recipient.upstream_path());
            let score = recipient.verdict.as_ref().map_or(0.0, |verdict| verdict.score);
            bound.score = bound.score.max(score);
            bound.hold |= recipient.verdict.as_ref().is_some_and(|verdict| verdict.hold_message);
        }
        Said::new(client_reply, reason)
    }

    fn note_trouble(&mut self, recipient: &Asked, result: Option<DeliveryResult>) {
        if let Some(result) = result {
            self.trouble = Trouble::grown(self.trouble.take(), recipient, result, &self.upstream);
        }
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

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.since_heard = 0;
    }

    /// Ends the transaction. `said` is the last word: to its DATA, to its dot, or the 421 that ended the session;
    /// without one the client gave it up, or no recipient was accepted.
    pub(crate) fn end(mut self, said: Option<&Said>, reason: Reason) -> Ended {
        let delivery = self.report();
        if let Some(bound) = &mut self.bound {
            bound.lose(Said::no_route());
        }
        let (action, code, reason) = match (said, &self.bound, self.recipients.first()) {
            (Some(said), _, _) => (said.action, Some(said.reply.code), said.reason),
            (None, None, Some(first)) => (first.action, Some(first.code), first.reason),
            (None, _, _) => (Action::Defer, None, reason),
        };
        self.held = None;
        self.end_message();
        self.end_span(code, reason);
        let highest = self.recipients.iter().map(|recipient| recipient.score).fold(0.0, f32::max);
        let score = self.score.unwrap_or(highest);
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
            trace_id: trace_id(&self.span).map(Into::into),
            recipients: self.recipients,
        };
        Ended { record, delivery, span: self.span }
    }

    fn end_span(&self, code: Option<u16>, reason: Reason) {
        if self.span.is_disabled() {
            return;
        }
        trace::name(&self.span, self.id);
        if let Some(code) = code {
            attribute(&self.span, trace::CODE, i64::from(code));
        }
        attribute(&self.span, trace::REASON, reason.as_str());
        trace::count(&self.span, trace::COUNT, self.recipients.len());
        if self.has_message {
            attribute(&self.span, trace::SIZE, i64::try_from(self.size).unwrap_or(i64::MAX));
        }
        trace::ended(&self.span);
    }
}

fn count_accepted(span: &Span, replies: &[RelayReply]) {
    trace::count(span, trace::ACCEPTED, replies.iter().filter(|reply| reply.accepted).count());
}
