//! Implements [`Verdicts`] in process: gather, judge, remember.

mod messages;
mod routes;
mod status;
mod store_key;
mod test_check;
mod turns;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::Registry;
use torwart_core::{
    Action, BoxFuture, ConnectionAnswer, ConnectionQuestion, Delivery, DeliveryResult, Envelope, Mailbox,
    MessageAnswer, MessageBody, MessageQuestion, Peer, Reason, RecipientsAnswer, RecipientsQuestion, Route,
    RouteDigest, Unavailable, UnavailableKind, Verdicts,
};
use torwart_policy::Policy;
use torwart_policy::decide::{
    Facts, GreylistWord, Group, Screening, judge, judge_connection, lessons, screen,
};
use torwart_policy::dns_lists::ListFinding;
use torwart_policy::greylist::Judged;
use torwart_proto::trace;
use tracing::Instrument as _;

use self::messages::Messages;
use self::routes::RetiredRoutes;
use self::status::StatusBoard;
use self::store_key::StoreKeys;
use self::turns::{NoTurn, Turns};
use crate::clock::Clock;
use crate::dns::Resolver;
use crate::dns_lists::Lists;
use crate::keys::{KeyFileError, Keyring};
use crate::metrics::{CheckMetrics, Metrics, Stage, StoreOp};
use crate::store::{Call, Store, StoreError};

pub use messages::MessageLimits;
pub use status::{OutcomesPage, PolicyStatus, Status, UpstreamOutcomes};

/// What the store said of a group's recipients, or the one word for all of them.
type Answers = Result<Vec<Judged>, GreylistWord>;

/// A question to the store, or an order.
enum Asked<'a, T> {
    Waiting(BoxFuture<'a, Result<T, StoreError>>),
    /// At once: from this process's own memory, which says nothing about a store on a server.
    AtOnce(Result<T, StoreError>),
    Answered(Result<T, StoreError>),
}

/// Answers the edge's questions by the policy in force.
pub struct Engine {
    policy: ArcSwapOption<Policy>,
    /// Held while a policy is put in force.
    changing: Mutex<()>,
    retired: RetiredRoutes,
    store: Arc<dyn Store>,
    store_timeout: Duration,
    turns: Turns,
    keys: StoreKeys,
    clock: Arc<dyn Clock>,
    own_addresses: Vec<IpAddr>,
    metrics: Metrics,
    status: StatusBoard,
    messages: Messages,
    lists: Arc<Lists>,
}

/// What an [`Engine`] is made of.
#[derive(Debug)]
pub struct Options {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// `--store-key-file`: the first writes, all read. None: a random key is kept in the store itself.
    pub key_files: Vec<PathBuf>,
    /// `--store-timeout`: a store that takes longer has failed.
    pub store_timeout: Duration,
    /// Addresses of the machines that this installation runs on: no senders.
    pub own_addresses: Vec<IpAddr>,
    pub messages: MessageLimits,
    pub checks: CheckOptions,
}

/// What checks need.
#[derive(Debug)]
pub struct CheckOptions {
    pub resolver: Resolver,
    /// `--secrets-dir`: files with query keys.
    pub secrets: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("--store-key-file: {}", join(.0))]
    Keys(Vec<KeyFileError>),
    #[error("--store: {0}")]
    Store(#[from] StoreError),
    #[error("no randomness for a store key: {0}")]
    Random(getrandom::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What all checks at RCPT may take together. The edge waits 4.9 s for an answer, of which the store may need 1.5 s.
const CHECK_BUDGET: Duration = Duration::from_secs(3);
/// The longest `--store-timeout`. A question waits half of it for its client's turn, and then all of it for the store;
/// with the 3 s that DNS may take that must fit into the 4.9 s that an edge waits, or `onStoreFailure` never holds.
pub const LONGEST_STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// `--store-timeout`. Half of all senders wait longer for a banner; a store in the same cluster needs 1 ms.
pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_millis(100);
/// What the start waits for a store on a server: a Cluster takes two connections in a row, some 10 ms.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

// === impl Engine ===

impl Engine {
    /// Reads the key files or else the store's own key. Until [`Engine::set_policy`] every question is
    /// `Unavailable`.
    pub async fn start(options: Options, registry: &Registry) -> Result<Self, StartError> {
        let Options { store, clock, key_files, store_timeout, own_addresses, messages, checks } = options;
        let metrics = Metrics::new(registry)?;
        let lists = Lists::new(checks.resolver, checks.secrets, CheckMetrics::new(registry)?);
        lists.watch();
        let keys = match Keyring::from_files(&key_files).map_err(StartError::Keys)? {
            Some(keys) => StoreKeys::fixed(keys),
            None => StoreKeys::in_store(&store, &clock, &metrics).await?,
        };
        // Whoever is asked before that passes everyone. A store that stays away holds nobody up.
        let _connected = tokio::time::timeout(CONNECT_TIMEOUT, store.connected()).await;
        Ok(Self {
            policy: ArcSwapOption::empty(),
            changing: Mutex::default(),
            retired: RetiredRoutes::default(),
            store,
            store_timeout,
            turns: Turns::default(),
            keys,
            status: StatusBoard::new(clock.now()),
            clock,
            own_addresses,
            metrics,
            messages: Messages::new(messages),
            lists,
        })
    }

    /// Puts a policy in force that comes from files; see [`set_published`](Self::set_published).
    pub fn set_policy(&self, policy: Arc<Policy>) {
        self.set_published(policy, 0);
    }

    /// Puts a policy in force, at once and for all questions from now on. Routes of the one before can still be
    /// fetched while sessions that were told of them last. `sequence` is the number of its publication.
    pub fn set_published(&self, policy: Arc<Policy>, sequence: u64) {
        let _one_after_the_other = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.metrics.policy_loaded(&policy.revision);
        self.lists.follow(&policy.gateway.dns_lists);
        let before = self.policy.swap(Some(Arc::clone(&policy)));
        if let Some(before) = before {
            self.retired.retire(&before, &policy, self.clock.now());
        }
        self.status.policy_changed(|| self.policy(), sequence, self.clock.now());
    }

    /// The policy in force; `None` before the first.
    pub fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
    }

    /// The DNS lists of the policy in force.
    pub fn lists(&self) -> &Arc<Lists> {
        &self.lists
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Takes back what a sender and its client have earned at the mail domains of `recipients`: a trap was hit, or
    /// a message was refused for its score.
    pub async fn revoke_trust(&self, peer: &Peer, envelope: &Envelope, recipients: &[Mailbox]) {
        let Some(policy) = self.policy.load_full() else { return };
        let now = self.clock.now();
        let facts = self.facts(peer, envelope, recipients, 0);
        let Some(keys) = self.keys() else { return };
        let revocations = lessons(&policy, &facts, f32::MAX, now)
            .into_iter()
            .map(|lesson| self.store.revoke(keys.revocation(&facts, &lesson.group)));
        // What is lost here is some distrust: the next refused message makes up for it.
        self.order(StoreOp::Revoke, revocations.collect()).await;
    }

    #[cfg(test)]
    pub(crate) fn message_room(&self) -> usize {
        self.messages.room_left()
    }

    pub(crate) fn policy_in_force(&self) -> Result<Arc<Policy>, Unavailable> {
        self.policy
            .load_full()
            .ok_or_else(|| Unavailable::new(UnavailableKind::NoPolicy, "no policy has been loaded yet"))
    }

    fn facts<'a>(
        &'a self,
        peer: &'a Peer,
        envelope: &'a Envelope,
        recipients: &'a [Mailbox],
        accepted_before: u32,
    ) -> Facts<'a> {
        Facts {
            client: peer.address.ip(),
            encrypted: peer.tls.is_some(),
            helo: peer.helo.as_deref(),
            sender: envelope.sender.as_ref(),
            declared_size: envelope.declared_size,
            recipients,
            accepted_before,
            checks: &[],
            dns_lists: &[],
            verified: &[],
            own_addresses: &self.own_addresses,
        }
    }

    /// The keys that hide addresses. None, which counts as a failure of the store, while its own is not known.
    fn keys(&self) -> Option<Arc<Keyring>> {
        let keys = self.keys.current();
        if let Err(error) = &keys {
            self.store_failed(error);
        }
        keys.ok()
    }

    /// Has all of it done at once, so that it takes no longer however many mail domains it is about, and counts what
    /// fails.
    async fn order(&self, op: StoreOp, orders: Vec<BoxFuture<'_, Result<(), StoreError>>>) {
        if orders.is_empty() {
            return;
        }
        let span = trace::current_child(op.span_name());
        for done in self.ask(op, orders, &span).await {
            if let Err(error) = done.result() {
                trace::fail(&span, error.kind());
                self.store_failed(&error);
            }
        }
    }

    /// Waits for the store no longer than it may take.
    async fn ask<'a, T>(
        &self,
        op: StoreOp,
        calls: Vec<BoxFuture<'a, Result<T, StoreError>>>,
        span: &tracing::Span,
    ) -> Vec<Asked<'a, T>> {
        let _timer = self.metrics.time_store(op);
        let mut asked: Vec<_> = calls.into_iter().map(Asked::Waiting).collect();
        let limited = tokio::time::timeout(self.store_timeout, answered(&mut asked));
        let _all_or_time_out = limited.instrument(span.clone()).await;
        if asked.iter().any(|asked| matches!(asked, Asked::Answered(Ok(_)))) {
            self.turns.answered();
        }
        asked
    }

    /// Asks about all groups at once, so that a question takes no longer however many mail domains it names. Waits
    /// for the client's turn first.
    async fn ask_greylist(&self, facts: &Facts<'_>, groups: &[Group<'_>]) -> Vec<Answers> {
        if groups.is_empty() {
            return Vec::new();
        }
        let all = |word: GreylistWord| groups.iter().map(|_| Err(word)).collect();
        let Some(keys) = self.keys() else { return all(GreylistWord::Failed) };
        let calls: Vec<_> = groups.iter().map(|group| keys.call(facts, group)).collect();
        let records = calls.iter().map(Call::weight).sum();
        let _turn = match self.turns.take(facts.client, records, self.store_timeout).await {
            Ok(turn) => turn,
            Err(NoTurn::Overloaded) => {
                self.metrics.store_failed(&StoreError::Busy);
                return all(GreylistWord::Overloaded);
            }
            Err(NoTurn::NoAnswers) => {
                self.store_failed(&StoreError::TimedOut);
                return all(GreylistWord::Failed);
            }
        };
        let span = trace::current_child(StoreOp::Check.span_name());
        let calls = calls.into_iter().map(|call| self.store.check(call)).collect();
        let asked = self.ask(StoreOp::Check, calls, &span).await;
        while let Some(fault) = self.store.take_fault() {
            self.metrics.store_failed(&fault);
        }
        asked.into_iter().map(|asked| self.answers(asked, &span)).collect()
    }

    fn answers(&self, asked: Asked<'_, Vec<Judged>>, span: &tracing::Span) -> Answers {
        asked.result().map_err(|error| {
            trace::fail(span, error.kind());
            self.store_failed(&error);
            GreylistWord::Failed
        })
    }

    fn store_failed(&self, error: &StoreError) {
        self.metrics.store_failed(error);
        tracing::debug!(store = self.store.kind(), %error, "no answer from the greylist store");
    }

    async fn ask_lists(
        &self,
        policy: &Policy,
        screening: &Screening<'_>,
        client: IpAddr,
    ) -> Vec<ListFinding> {
        let wanted = screening.wanted_lists(policy);
        if wanted.is_empty() {
            return Vec::new();
        }
        let until = tokio::time::Instant::now() + CHECK_BUDGET;
        self.lists.ask(wanted, client, until).await
    }

    /// The one way to an answer about recipients. `look` sees what it was made of.
    pub(crate) async fn judged<T>(
        &self,
        question: RecipientsQuestion,
        look: impl FnOnce(&Facts<'_>, &Screening<'_>, &[Option<GreylistWord>]) -> T,
    ) -> Result<(RecipientsAnswer, T), Unavailable> {
        let _in_flight = self.metrics.call();
        let _timer = self.metrics.time_verdict(Stage::Recipients);
        let policy = self.policy_in_force()?;
        let RecipientsQuestion { peer, transaction: _, envelope, recipients, accepted_before } = question;
        let facts = self.facts(&peer, &envelope, &recipients, accepted_before);
        let screening = screen(&policy, &facts, self.clock.now());
        let dns_lists = self.ask_lists(&policy, &screening, facts.client).await;
        let facts = Facts { dns_lists: &dns_lists, ..facts };
        let screening =
            if dns_lists.is_empty() { screening } else { screen(&policy, &facts, self.clock.now()) };
        if screening.suspect {
            self.metrics.suspect();
            self.status.suspect(self.clock.now());
        }
        let mut words: Vec<Option<GreylistWord>> = vec![None; recipients.len()];
        let groups = screening.groups(&facts);
        for (group, answers) in groups.iter().zip(self.ask_greylist(&facts, &groups).await) {
            for (position, member) in group.members.iter().enumerate() {
                let answer = match &answers {
                    Ok(judged) => judged.get(position).map_or(GreylistWord::Failed, |judged| {
                        judged.held.inspect(|held| self.metrics.held_up(*held));
                        GreylistWord::Judged(*judged)
                    }),
                    Err(word) => *word,
                };
                if let Some(word) = words.get_mut(*member) {
                    *word = Some(answer);
                }
            }
        }
        let mut answer = judge(&policy, &facts, &screening, &words);
        if self.messages.hold_all() {
            answer.recipients.iter_mut().for_each(|verdict| verdict.hold_message = true);
        }
        for verdict in &answer.recipients {
            self.metrics.recipient(verdict);
        }
        let seen = look(&facts, &screening, &words);
        Ok((answer, seen))
    }

    async fn recipients(&self, question: RecipientsQuestion) -> Result<RecipientsAnswer, Unavailable> {
        let (answer, ()) = self.judged(question, |_, _, _| ()).await?;
        Ok(answer)
    }

    async fn message(
        &self,
        question: MessageQuestion,
        body: Box<dyn MessageBody>,
    ) -> Result<MessageAnswer, Unavailable> {
        // before anything is read: another replica may have a policy
        let policy = self.policy_in_force()?;
        let _in_flight = self.metrics.call();
        let message = self.messages.read(body).await?;
        // how long its client took to bring it is no verdict's time
        let _timer = self.metrics.time_verdict(Stage::Message);
        let answer = self.messages.judge(&question, &message, &policy.revision).await;
        self.metrics.verdict(Stage::Message, answer.action, answer.reason, answer.monitored);
        Ok(answer)
    }

    async fn remember(&self, delivery: Delivery) {
        let _in_flight = self.metrics.call();
        self.status.reported(|| self.policy(), &delivery, self.clock.now());
        let Delivery {
            peer,
            transaction: _,
            envelope,
            recipients,
            route: _,
            score,
            result,
            upstream: _,
            upstream_reply: _,
        } = delivery;
        let is_delivered = match result {
            DeliveryResult::Delivered => true,
            // Only the null sender has taken something that it can give back.
            DeliveryResult::Deferred | DeliveryResult::Rejected | DeliveryResult::Unreachable
                if envelope.sender.is_none() =>
            {
                false
            }
            DeliveryResult::Deferred
            | DeliveryResult::Rejected
            | DeliveryResult::Unreachable
            | DeliveryResult::Unknown => return,
        };
        let Some(policy) = self.policy.load_full() else { return };
        let facts = self.facts(&peer, &envelope, &recipients, 0);
        let Some(keys) = self.keys() else { return };
        let orders = lessons(&policy, &facts, score, self.clock.now()).into_iter().map(|lesson| {
            let call = keys.call(&facts, &lesson.group);
            if is_delivered { self.store.deliver(call, lesson.trust) } else { self.store.give_back(call) }
        });
        let op = if is_delivered { StoreOp::Deliver } else { StoreOp::GiveBack };
        // A lesson that is lost costs a sender some trust or a bounce some minutes, never a mail.
        self.order(op, orders.collect()).await;
    }

    fn connection(&self, question: &ConnectionQuestion) -> Result<ConnectionAnswer, Unavailable> {
        let _in_flight = self.metrics.call();
        let _timer = self.metrics.time_verdict(Stage::Connection);
        let policy = self.policy_in_force()?;
        let (answer, monitored) = judge_connection(&policy, question.peer.address.ip(), self.clock.now());
        let (action, reason) = match &answer.refuse {
            Some((reply, reason)) if reply.code >= 500 => (Action::Reject, *reason),
            Some((_, reason)) => (Action::Defer, *reason),
            None => (Action::Accept, Reason::Accepted),
        };
        self.metrics.verdict(Stage::Connection, action, reason, monitored);
        Ok(answer)
    }

    fn find_route(&self, digest: RouteDigest) -> Result<Arc<Route>, Unavailable> {
        let policy = self.policy_in_force()?;
        policy.routes.get(&digest).cloned().or_else(|| self.retired.get(&digest)).ok_or_else(|| {
            Unavailable::new(UnavailableKind::UnknownRoute, format!("no policy has the route {digest}"))
        })
    }
}

impl Verdicts for Engine {
    fn check_connection(
        &self,
        question: ConnectionQuestion,
    ) -> BoxFuture<'_, Result<ConnectionAnswer, Unavailable>> {
        Box::pin(std::future::ready(self.connection(&question)))
    }

    fn check_recipients(
        &self,
        question: RecipientsQuestion,
    ) -> BoxFuture<'_, Result<RecipientsAnswer, Unavailable>> {
        Box::pin(self.recipients(question))
    }

    fn check_message(
        &self,
        question: MessageQuestion,
        body: Box<dyn MessageBody>,
    ) -> BoxFuture<'_, Result<MessageAnswer, Unavailable>> {
        Box::pin(self.message(question, body))
    }

    fn report_delivery(&self, delivery: Delivery) -> BoxFuture<'_, ()> {
        Box::pin(self.remember(delivery))
    }

    fn route(&self, digest: RouteDigest) -> BoxFuture<'_, Result<Arc<Route>, Unavailable>> {
        Box::pin(std::future::ready(self.find_route(digest)))
    }
}

impl Default for CheckOptions {
    /// Nobody is asked.
    fn default() -> Self {
        Self { resolver: Resolver::without_servers(), secrets: None }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).finish_non_exhaustive()
    }
}

// === impl Asked ===

impl<T> Asked<'_, T> {
    fn result(self) -> Result<T, StoreError> {
        match self {
            Self::AtOnce(result) | Self::Answered(result) => result,
            Self::Waiting(_) => Err(StoreError::TimedOut),
        }
    }
}

/// Ready when every question is answered; those that were can be seen before.
async fn answered<T>(asked: &mut [Asked<'_, T>]) {
    let mut at_once = true;
    poll_fn(|context| {
        let mut all = Poll::Ready(());
        for asked in &mut *asked {
            let Asked::Waiting(question) = asked else { continue };
            match question.as_mut().poll(context) {
                Poll::Ready(answer) if at_once => *asked = Asked::AtOnce(answer),
                Poll::Ready(answer) => *asked = Asked::Answered(answer),
                Poll::Pending => all = Poll::Pending,
            }
        }
        at_once = false;
        all
    })
    .await;
}

fn join(errors: &[KeyFileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
