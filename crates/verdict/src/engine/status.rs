//! What the engine knows of itself: for the operator's conditions, and for people.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use torwart_core::{Delivery, DeliveryResult, Revision, RouteDigest};
use torwart_policy::Policy;
use torwart_policy::model::{Domain, DomainMatch};

use super::Engine;

/// One process's state. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// When the engine was started.
    pub started_at: i64,
    /// `None` before the first.
    pub policy: Option<PolicyStatus>,
    /// Questions about clients whose address no sender on the internet has.
    pub suspects: u64,
    /// The last of them.
    pub last_suspect: Option<i64>,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    pub revision: Revision,
    /// The number of its publication; 0 if it comes from files.
    pub sequence: u64,
    /// When it was put in force; the same revision again does not count.
    pub loaded_at: i64,
}

/// How the upstreams of one MailDomain have answered, as far as edges reported to this process, since it started or
/// the object's route changed. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamOutcomes {
    /// `namespace/name`.
    pub object: Arc<str>,
    /// Whether the last transaction reached an upstream.
    pub reachable: bool,
    /// Since when `reachable` holds.
    pub since: i64,
    pub last_reported: i64,
    /// The upstream that spoke last, `host:port`.
    pub last_upstream: Option<Arc<str>>,
    /// What it said last, at most [`Delivery::LONGEST_REPLY`] characters.
    pub last_reply: Option<Arc<str>>,
    pub delivered: u64,
    pub deferred: u64,
    pub rejected: u64,
    pub unreachable: u64,
    pub unknown: u64,
}

/// A part of the table of outcomes, sorted by object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutcomesPage {
    pub outcomes: Vec<UpstreamOutcomes>,
    /// Where the next page begins: after this object. `None`: this was the last page.
    pub next_after: Option<Arc<str>>,
}

/// Collects what [`Status`] and [`UpstreamOutcomes`] say. The table has one entry for each MailDomain object of the
/// policy in force that had mail, so the policy bounds it.
#[derive(Debug)]
pub(super) struct StatusBoard {
    started_at: i64,
    policy: watch::Sender<Option<PolicyStatus>>,
    suspects: AtomicU64,
    last_suspect: AtomicI64,
    outcomes: Mutex<BTreeMap<Arc<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    route: RouteDigest,
    outcomes: UpstreamOutcomes,
}

/// Characters of an upstream's name that are kept: the longest host name (253) with its port.
const LONGEST_UPSTREAM: usize = 260;

// === impl StatusBoard ===

impl StatusBoard {
    pub(super) fn new(now: i64) -> Self {
        Self {
            started_at: now,
            policy: watch::Sender::new(None),
            suspects: AtomicU64::new(0),
            last_suspect: AtomicI64::new(0),
            outcomes: Mutex::default(),
        }
    }

    /// A policy was put in force. Objects that left it, or have other upstreams now, lose their entries.
    /// `in_force` says what is in force when it is called. Calls follow one another as the policies did.
    pub(super) fn policy_changed(&self, in_force: impl Fn() -> Option<Arc<Policy>>, sequence: u64, now: i64) {
        let mut table = self.outcomes();
        // Under the lock, as in `reported`: whoever comes later sees the newer policy.
        let Some(policy) = in_force() else { return };
        let routes: BTreeMap<&Arc<str>, RouteDigest> =
            policy.domains.iter().map(|(_, domain)| (&domain.object, domain.route)).collect();
        table.retain(|object, entry| routes.get(object) == Some(&entry.route));
        drop(table);
        self.policy.send_if_modified(|known| {
            let same = known.as_ref().filter(|known| known.revision == policy.revision);
            let loaded_at = same.map_or(now, |same| same.loaded_at);
            let status = PolicyStatus { revision: policy.revision.clone(), sequence, loaded_at };
            let is_new = known.as_ref() != Some(&status);
            *known = Some(status);
            is_new
        });
    }

    pub(super) fn suspect(&self, now: i64) {
        self.suspects.fetch_add(1, Ordering::Relaxed);
        self.last_suspect.store(now, Ordering::Relaxed);
    }

    /// A transaction ended. It counts once for each MailDomain that its recipients belong to; if a domain has another
    /// route by now, the report is not about its upstreams any more.
    pub(super) fn reported(&self, in_force: impl Fn() -> Option<Arc<Policy>>, delivery: &Delivery, now: i64) {
        let mut table = self.outcomes();
        let Some(policy) = in_force() else { return };
        for object in objects(&policy, delivery, now) {
            table
                .entry(Arc::clone(object))
                .or_insert_with(|| Entry::new(object, delivery, now))
                .add(delivery, now);
        }
    }

    fn outcomes(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Entry>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The MailDomain objects whose upstreams a delivery tells of, each once.
fn objects<'p>(policy: &'p Policy, delivery: &Delivery, now: i64) -> BTreeSet<&'p Arc<str>> {
    let postmaster = policy.gateway.postmaster.as_ref();
    let find = |domain| match policy.domains.find(domain, now) {
        DomainMatch::Known { domain, .. } => Some(&**domain),
        DomainMatch::Removed { .. } | DomainMatch::Held | DomainMatch::Unknown => None,
    };
    let named = delivery.recipients.iter().filter_map(|recipient| {
        let meant = if recipient.is_bare_postmaster() { postmaster? } else { recipient };
        find(&meant.domain)
    });
    let is_of_route = |domain: &&Domain| domain.route == delivery.route;
    named.filter(is_of_route).map(|domain| &domain.object).collect()
}

// === impl Entry ===

impl Entry {
    fn new(object: &Arc<str>, delivery: &Delivery, now: i64) -> Self {
        let outcomes = UpstreamOutcomes {
            object: Arc::clone(object),
            reachable: is_reachable(delivery.result),
            since: now,
            last_reported: now,
            last_upstream: None,
            last_reply: None,
            delivered: 0,
            deferred: 0,
            rejected: 0,
            unreachable: 0,
            unknown: 0,
        };
        Self { route: delivery.route, outcomes }
    }

    fn add(&mut self, delivery: &Delivery, now: i64) {
        let outcomes = &mut self.outcomes;
        let count = match delivery.result {
            DeliveryResult::Delivered => &mut outcomes.delivered,
            DeliveryResult::Deferred => &mut outcomes.deferred,
            DeliveryResult::Rejected => &mut outcomes.rejected,
            DeliveryResult::Unreachable => &mut outcomes.unreachable,
            DeliveryResult::Unknown => &mut outcomes.unknown,
        };
        *count = count.saturating_add(1);
        let reachable = is_reachable(delivery.result);
        if outcomes.reachable != reachable {
            outcomes.reachable = reachable;
            outcomes.since = now;
        }
        outcomes.last_reported = now;
        if let Some(upstream) = &delivery.upstream {
            outcomes.last_upstream = Some(shortened(upstream, LONGEST_UPSTREAM));
        }
        if let Some(reply) = &delivery.upstream_reply {
            outcomes.last_reply = Some(shortened(reply, Delivery::LONGEST_REPLY));
        }
    }
}

fn is_reachable(result: DeliveryResult) -> bool {
    match result {
        DeliveryResult::Delivered
        | DeliveryResult::Deferred
        | DeliveryResult::Rejected
        | DeliveryResult::Unknown => true,
        DeliveryResult::Unreachable => false,
    }
}

/// The text, or its first `longest` characters.
fn shortened(text: &Arc<str>, longest: usize) -> Arc<str> {
    match text.char_indices().nth(longest) {
        Some((end, _)) => text.get(..end).unwrap_or_default().into(),
        None => Arc::clone(text),
    }
}

// === impl Engine ===

impl Engine {
    pub fn status(&self) -> Status {
        let board = &self.status;
        let suspects = board.suspects.load(Ordering::Relaxed);
        Status {
            started_at: board.started_at,
            policy: board.policy.borrow().clone(),
            suspects,
            last_suspect: (suspects > 0).then(|| board.last_suspect.load(Ordering::Relaxed)),
        }
    }

    /// Tells of every new revision and publication; `None` before the first.
    pub fn watch_policy(&self) -> watch::Receiver<Option<PolicyStatus>> {
        self.status.policy.subscribe()
    }

    /// At most `most` entries behind the object `after`; the empty text is before all of them.
    pub fn upstream_outcomes(&self, after: &str, most: usize) -> OutcomesPage {
        let table = self.status.outcomes();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let mut rest = table.range::<str, _>(behind).map(|(_, entry)| &entry.outcomes);
        let outcomes: Vec<_> = rest.by_ref().take(most).cloned().collect();
        let is_last = rest.next().is_none();
        let next_after = outcomes.last().filter(|_| !is_last).map(|last| Arc::clone(&last.object));
        OutcomesPage { outcomes, next_after }
    }
}

#[cfg(test)]
mod tests;
