//! Events: changes of conditions that somebody should hear of, each once.

use std::collections::BTreeMap;

use torwart_api::{Condition, ConditionStatus, Kind, ObjectRef};

use super::compiled::clip;
use super::reasons;
use super::status::Before;
use crate::values::{EventWrite, Seen};

/// The most Events of one plan; what is beyond is summed up in one.
pub(super) const MOST: usize = 30;

/// The most bytes of a note that the API server takes are 1024.
const LONGEST_NOTE: usize = 1000;

/// The reason of the Event that sums up.
pub const MORE_CHANGES: &str = "MoreChanges";

/// Which changes of a condition are told, and as what.
struct Told {
    kind: &'static str,
    /// What was being done.
    action: &'static str,
    /// It became false, or false for another reason.
    lost: bool,
    /// It became true after it had been false.
    regained: Option<&'static str>,
}

const TOLD: &[Told] = &[
    Told { kind: "Accepted", action: "Accept", lost: true, regained: Some("Accepted") },
    Told { kind: "ResolvedRefs", action: "Resolve", lost: true, regained: Some("Resolved") },
    Told { kind: "UpstreamReachable", action: "Deliver", lost: true, regained: Some("UpstreamReachable") },
    Told { kind: "ClientIPPreserved", action: "Observe", lost: true, regained: None },
    Told { kind: "ListsUsable", action: "Observe", lost: true, regained: Some("ListsUsable") },
    Told { kind: "ReputationClean", action: "Observe", lost: true, regained: Some("ReputationClean") },
];

/// Why nothing is published: told of the MailGateway.
const HOLDS: &[&str] = &[
    reasons::MASS_REMOVAL,
    reasons::SNAPSHOT_TOO_LARGE,
    reasons::FORMAT_NOT_READABLE,
    reasons::NEWER_FORMAT,
];

/// Adds what changed from `before` to `conditions`.
pub(super) fn add(
    events: &mut Vec<EventWrite>,
    seen: &Seen,
    before: Option<&Before>,
    conditions: &[Condition],
) {
    for condition in conditions {
        let old = before.and_then(|before| before.of(&condition.kind));
        let was = old.map(|old| old.status);
        let is_new_reason = old.is_none_or(|old| old.reason != condition.reason);
        let told = TOLD.iter().find(|told| told.kind == condition.kind);
        let (is_warning, reason, action) = match (told, condition.status) {
            (Some(told), ConditionStatus::False)
                if told.lost && (was != Some(ConditionStatus::False) || is_new_reason) =>
            {
                (true, stated(condition), told.action)
            }
            (Some(Told { regained: Some(reason), action, .. }), ConditionStatus::True)
                if was == Some(ConditionStatus::False) =>
            {
                (false, *reason, *action)
            }
            (None, ConditionStatus::False)
                if condition.kind == "Programmed"
                    && seen.object.kind == Kind::MailGateway
                    && is_new_reason
                    && HOLDS.contains(&condition.reason.as_str()) =>
            {
                (true, stated(condition), "Publish")
            }
            (None, ConditionStatus::True)
                if condition.kind == "Programmed"
                    && was != Some(ConditionStatus::True)
                    && old.is_none_or(|old| old.reason != reasons::UPDATING) =>
            {
                (false, reasons::PROGRAMMED, "Publish")
            }
            _ => continue,
        };
        events.push(EventWrite {
            object: seen.object.clone(),
            uid: seen.uid.clone(),
            is_warning,
            reason,
            action,
            message: clip(condition.message.clone(), LONGEST_NOTE),
        });
    }
}

fn stated(condition: &Condition) -> &'static str {
    let known = reasons::ALL.iter().find(|reason| **reason == condition.reason);
    match known.copied() {
        Some(reasons::UNREACHABLE) => reasons::UPSTREAM_UNREACHABLE,
        Some(reason) => reason,
        None => reasons::INVALID,
    }
}

/// At most [`MOST`], the MailGateway's and warnings first; the rest in one Event of the MailGateway.
pub(super) fn bounded(mut events: Vec<EventWrite>, gateway: Option<&Seen>) -> Vec<EventWrite> {
    if events.len() <= MOST {
        return events;
    }
    events.sort_by_key(|event| (event.object.kind != Kind::MailGateway, !event.is_warning));
    let rest = events.split_off(MOST - 1);
    if let Some(Seen { object, uid, .. }) = gateway {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut named: Option<&ObjectRef> = None;
        for event in &rest {
            *counts.entry(event.reason).or_default() += 1;
            named = named.or(Some(&event.object));
        }
        let counts: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let named = named.map(|named| format!(", of {named} and others")).unwrap_or_default();
        events.push(EventWrite {
            object: object.clone(),
            uid: uid.clone(),
            is_warning: rest.iter().any(|event| event.is_warning),
            reason: MORE_CHANGES,
            action: "Publish",
            message: clip(format!("more happened at once{named}: {}", counts.join(", ")), LONGEST_NOTE),
        });
    }
    events
}
