//! Implements [`Verdicts`] in process: gather, judge, remember.

mod routes;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::Registry;
use torwart_core::{
    Action, BoxFuture, ConnectionAnswer, ConnectionQuestion, Delivery, DeliveryResult, Envelope, Mailbox,
    Peer, Reason, RecipientsAnswer, RecipientsQuestion, Route, RouteDigest, Unavailable, Verdicts,
};
use torwart_policy::Policy;
use torwart_policy::decide::{Facts, GreylistWord, Group, judge, judge_connection, lessons, screen};
use torwart_policy::greylist::Judged;

use self::routes::RetiredRoutes;
use crate::clock::Clock;
use crate::keys::{KeyFileError, Keyring};
use crate::metrics::{Metrics, Stage, StoreOp};
use crate::store::{Store, StoreError};

/// Answers the edge's questions by the policy in force.
pub struct Engine {
    policy: ArcSwapOption<Policy>,
    retired: RetiredRoutes,
    store: Arc<dyn Store>,
    store_timeout: Duration,
    keys: Keyring,
    clock: Arc<dyn Clock>,
    own_addresses: Vec<IpAddr>,
    metrics: Metrics,
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

/// `--store-timeout`. Half of all senders wait longer for a banner; a store in the same cluster needs 1 ms.
pub const DEFAULT_STORE_TIMEOUT: Duration = Duration::from_millis(100);

/// A store that is just being opened, or repaired, may take so long for its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Engine ===

impl Engine {
    /// Reads the key files or else the store's own key. Until [`Engine::set_policy`] every question is
    /// `Unavailable`.
    pub async fn start(options: Options, registry: &Registry) -> Result<Self, StartError> {
        let Options { store, clock, key_files, store_timeout, own_addresses } = options;
        let metrics = Metrics::new(registry)?;
        let keys = match Keyring::from_files(&key_files).map_err(StartError::Keys)? {
            Some(keys) => keys,
            None => {
                let mut fresh = [0; 32];
                getrandom::fill(&mut fresh).map_err(StartError::Random)?;
                let _timer = metrics.time_store(StoreOp::Secret);
                let secret = tokio::time::timeout(START_TIMEOUT, store.secret(fresh))
                    .await
                    .unwrap_or(Err(StoreError::TimedOut))?;
                if store.is_persistent() {
                    tracing::warn!(
                        store = store.kind(),
                        "no --store-key-file: the key that hides addresses in the store is kept in the store itself"
                    );
                }
                Keyring::new(&secret)
            }
        };
        Ok(Self {
            policy: ArcSwapOption::empty(),
            retired: RetiredRoutes::default(),
            store,
            store_timeout,
            keys,
            clock,
            own_addresses,
            metrics,
        })
    }

    /// Puts a policy in force, at once and for all questions from now on. Routes of the one before can still be
    /// fetched while sessions that were told of them last.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        self.metrics.policy_loaded(&policy.revision);
        let before = self.policy.swap(Some(Arc::clone(&policy)));
        if let Some(before) = before {
            self.retired.retire(&before, &policy, self.clock.now());
        }
    }

    /// The policy in force; `None` before the first.
    pub fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
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
        for lesson in lessons(&policy, &facts, f32::MAX, now) {
            let revocation = self.keys.revocation(&facts, &lesson.group);
            let _timer = self.metrics.time_store(StoreOp::Revoke);
            // What is lost here is some distrust: the next refused message makes up for it.
            let _lost = self.within_limit(self.store.revoke(revocation)).await;
        }
    }

    fn policy_in_force(&self) -> Result<Arc<Policy>, Unavailable> {
        self.policy.load_full().ok_or_else(|| Unavailable("no policy has been loaded yet".into()))
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
            helo: peer.helo.as_deref(),
            sender: envelope.sender.as_ref(),
            declared_size: envelope.declared_size,
            recipients,
            accepted_before,
            checks: &[],
            verified: &[],
            own_addresses: &self.own_addresses,
        }
    }

    /// Waits for the store no longer than it may take, and counts its failures.
    async fn within_limit<T>(&self, call: BoxFuture<'_, Result<T, StoreError>>) -> Option<T> {
        let result =
            tokio::time::timeout(self.store_timeout, call).await.unwrap_or(Err(StoreError::TimedOut));
        if let Err(error) = &result {
            self.metrics.store_failed(error);
            tracing::debug!(store = self.store.kind(), %error, "no answer from the greylist store");
        }
        result.ok()
    }

    async fn ask_greylist(&self, facts: &Facts<'_>, group: &Group<'_>) -> Option<Vec<Judged>> {
        let _timer = self.metrics.time_store(StoreOp::Check);
        self.within_limit(self.store.check(self.keys.call(facts, group))).await
    }

    async fn recipients(&self, question: RecipientsQuestion) -> Result<RecipientsAnswer, Unavailable> {
        let _timer = self.metrics.time_verdict(Stage::Recipients);
        let policy = self.policy_in_force()?;
        let RecipientsQuestion { peer, transaction: _, envelope, recipients, accepted_before } = question;
        let facts = self.facts(&peer, &envelope, &recipients, accepted_before);
        let screening = screen(&policy, &facts, self.clock.now());
        if screening.suspect {
            self.metrics.suspect();
        }
        let mut words: Vec<Option<GreylistWord>> = vec![None; recipients.len()];
        for group in screening.groups(&facts) {
            let answers = self.ask_greylist(&facts, &group).await;
            for (position, member) in group.members.iter().enumerate() {
                let judged = answers.as_ref().and_then(|answers| answers.get(position)).copied();
                if let Some(held) = judged.and_then(|judged| judged.held) {
                    self.metrics.held_up(held);
                }
                if let Some(word) = words.get_mut(*member) {
                    *word = Some(judged.map_or(GreylistWord::Failed, GreylistWord::Judged));
                }
            }
        }
        let answer = judge(&policy, &facts, &screening, &words);
        for verdict in &answer.recipients {
            self.metrics.recipient(verdict);
        }
        Ok(answer)
    }

    async fn remember(&self, delivery: Delivery) {
        let Delivery { peer, transaction: _, envelope, recipients, route: _, score, result } = delivery;
        match result {
            DeliveryResult::Delivered => {}
            DeliveryResult::Deferred | DeliveryResult::Rejected => return,
        }
        let Some(policy) = self.policy.load_full() else { return };
        let facts = self.facts(&peer, &envelope, &recipients, 0);
        for lesson in lessons(&policy, &facts, score, self.clock.now()) {
            let call = self.keys.call(&facts, &lesson.group);
            let _timer = self.metrics.time_store(StoreOp::Deliver);
            // A lesson that is lost costs a sender some trust, never a mail.
            let _lost = self.within_limit(self.store.deliver(call, lesson.trust)).await;
        }
    }

    fn connection(&self, question: &ConnectionQuestion) -> Result<ConnectionAnswer, Unavailable> {
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
        policy
            .routes
            .get(&digest)
            .cloned()
            .or_else(|| self.retired.get(&digest))
            .ok_or_else(|| Unavailable(format!("no policy has the route {digest}").into()))
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

    fn report_delivery(&self, delivery: Delivery) -> BoxFuture<'_, ()> {
        Box::pin(self.remember(delivery))
    }

    fn route(&self, digest: RouteDigest) -> BoxFuture<'_, Result<Arc<Route>, Unavailable>> {
        Box::pin(std::future::ready(self.find_route(digest)))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).finish_non_exhaustive()
    }
}

fn join(errors: &[KeyFileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
