//! Conditions with their times, and whether a status must be written.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use torwart_api::{Condition, ConditionStatus, MailDomainStatus, MailGatewayStatus, ObjectRef, Time};

use super::compiled::Judgement;
use super::reasons;
use crate::values::Seen;

/// How often, at most, a message is written whose numbers alone changed; in seconds.
const REFRESH: i64 = 300;

/// Either kind's status.
pub(super) trait Status: DeserializeOwned + serde::Serialize + Default + PartialEq + Clone {
    /// The types of its conditions.
    const KINDS: &'static [&'static str];
    fn conditions(&mut self) -> &mut Vec<Condition>;
}

/// What was last wanted for an object, or is there: from which a change is a change.
#[derive(Clone, Debug)]
pub(super) struct Before {
    pub(super) uid: String,
    pub(super) conditions: Vec<Brief>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    pub(super) kind: &'static str,
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    generation: Option<i64>,
    since: Time,
}

/// When messages were written last whose numbers change all the time.
#[derive(Debug, Default)]
pub(super) struct Refreshes(BTreeMap<ObjectRef, i64>);

/// A judgement, and which condition it is.
pub(super) type Judged = (&'static str, Judgement);

// === impl Status ===

impl Status for MailDomainStatus {
    const KINDS: &'static [&'static str] =
        &["Accepted", "ResolvedRefs", "Programmed", "UpstreamReachable", "Ready"];

    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

impl Status for MailGatewayStatus {
    const KINDS: &'static [&'static str] =
        &["Accepted", "Programmed", "ClientIPPreserved", "ListsUsable", "ReputationClean"];

    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

/// What is there, as far as it is ours; `None` if it can't be read.
pub(super) fn read<S: Status>(status: &Value) -> Option<S> {
    if status.is_null() {
        return None;
    }
    let mut status = S::deserialize(status).ok()?;
    let place = |condition: &Condition| S::KINDS.iter().position(|kind| *kind == condition.kind);
    let conditions = status.conditions();
    conditions.retain(|condition| place(condition).is_some());
    conditions.sort_by_key(place);
    Some(status)
}

/// Conditions whose times are kept from before as long as their status is the same.
pub(super) fn conditions(
    judged: Vec<Judged>,
    seen: &Seen,
    before: Option<&Before>,
    now: Time,
) -> Vec<Condition> {
    let condition = |(kind, Judgement { status, reason, message }): Judged| Condition {
        kind: kind.to_owned(),
        status,
        observed_generation: Some(seen.generation),
        last_transition_time: before
            .and_then(|before| before.of(kind))
            .filter(|before| before.status == status)
            .map_or(now, |before| before.since),
        reason: reason.to_owned(),
        message,
    };
    judged.into_iter().map(condition).collect()
}

/// The status that must be written; `None` if what is there will do.
pub(super) fn to_write<S: Status>(
    fresh: S,
    there: Option<S>,
    object: &ObjectRef,
    refreshes: &mut Refreshes,
    now: i64,
) -> Option<Value> {
    if let Some(mut there) = there {
        if there == fresh {
            return None;
        }
        let mut calm = fresh.clone();
        for (calm, there) in calm.conditions().iter_mut().zip(there.conditions()) {
            let is_same =
                calm.kind == there.kind && calm.status == there.status && calm.reason == there.reason;
            if is_same && is_volatile(calm) {
                calm.message.clone_from(&there.message);
            }
        }
        if calm == there && !refreshes.is_due(object, now) {
            return None;
        }
    }
    // Types of texts, numbers and lists always have a JSON form.
    serde_json::to_value(&fresh).ok()
}

/// Whether the message holds numbers or names that change while the condition does not.
fn is_volatile(condition: &Condition) -> bool {
    const VOLATILE: &[&str] = &[
        reasons::PENDING,
        reasons::UPDATING,
        reasons::REACHED,
        reasons::UNREACHABLE,
        reasons::SUSPECT_ADDRESSES,
        reasons::LIST_UNUSABLE,
        reasons::NO_ANSWER,
    ];
    VOLATILE.contains(&condition.reason.as_str())
}

// === impl Before ===

impl Before {
    /// What is there, if it is ours.
    pub(super) fn there<S: Status>(seen: &Seen, there: Option<&S>) -> Option<Self> {
        let mut there = there?.clone();
        Some(Self::new::<S>(&seen.uid, there.conditions()))
    }

    pub(super) fn new<S: Status>(uid: &str, conditions: &[Condition]) -> Self {
        let brief = |condition: &Condition| {
            Some(Brief {
                kind: S::KINDS.iter().find(|kind| **kind == condition.kind)?,
                status: condition.status,
                reason: reasons::ALL.iter().find(|reason| **reason == condition.reason).unwrap_or(&""),
                generation: condition.observed_generation,
                since: condition.last_transition_time,
            })
        };
        Self { uid: uid.to_owned(), conditions: conditions.iter().filter_map(brief).collect() }
    }

    pub(super) fn of(&self, kind: &str) -> Option<&Brief> {
        self.conditions.iter().find(|brief| brief.kind == kind)
    }

    /// Whether a condition was true for this generation.
    pub(super) fn was_true(&self, kind: &str, generation: i64) -> bool {
        self.of(kind).is_some_and(|brief| {
            brief.status == ConditionStatus::True && brief.generation == Some(generation)
        })
    }
}

// === impl Refreshes ===

impl Refreshes {
    /// The first time that an object asks, it waits longer, each for its own time, so that not all are written at once.
    fn is_due(&mut self, object: &ObjectRef, now: i64) -> bool {
        let Some(due) = self.0.get_mut(object) else {
            let spread = object.name.bytes().fold(7_i64, |sum, byte| (sum * 31 + i64::from(byte)) % REFRESH);
            self.0.insert(object.clone(), now + REFRESH + spread);
            return false;
        };
        if now < *due {
            return false;
        }
        *due = now + REFRESH;
        true
    }

    pub(super) fn keep(&mut self, wanted: impl Fn(&ObjectRef) -> bool) {
        self.0.retain(|object, _| wanted(object));
    }
}
