//! Mail domains that leave the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use torwart_api::{MailGateway, ObjectRef};

use super::{Accepted, domain};
use crate::domains::DomainPattern;
use crate::inputs::Inputs;
use crate::model::Domain;
use crate::snapshot::Snapshot;

/// The annotation of the MailGateway that confirms a mass removal. Its value is that of [`MassRemoval::confirm`], so
/// that it confirms this one and no later one.
pub const CONFIRM_REMOVAL: &str = "torwart.dev/confirm-removal";

/// Fewer domains than this leave without a question.
const FEWEST: usize = 10;

/// A plan that would remove more than half of the mail domains, and at least ten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MassRemoval {
    /// How many would go.
    pub removed: usize,
    /// Of how many.
    pub of: usize,
    /// What the annotation [`CONFIRM_REMOVAL`] must say: it names the policy that they would be removed from.
    pub confirm: String,
}

/// Whether the plan must wait. What left within the removal grace without a confirmation counts with what leaves now:
/// a namespace is emptied object by object.
pub(super) fn hold(
    inputs: &Inputs,
    gateway: &MailGateway,
    accepted: &BTreeMap<ObjectRef, Accepted>,
) -> Option<MassRemoval> {
    let last = inputs.last.as_deref()?;
    let after: BTreeSet<&DomainPattern> = accepted
        .values()
        .flat_map(|form| form.compiled.patterns.iter().map(|(pattern, _)| pattern))
        .collect();
    let mut before = all_patterns(last);
    if before.iter().all(|pattern| after.contains(pattern)) {
        return None;
    }
    let unconfirmed = last
        .removed
        .iter()
        .filter(|(domain, until)| **until > inputs.now && !last.confirmed.contains(domain.as_str()));
    before.extend(unconfirmed.filter_map(|(domain, _)| DomainPattern::parse_any(domain).ok()));
    let removed = before.iter().filter(|pattern| !after.contains(pattern)).count();
    if removed < FEWEST || removed * 2 <= before.len() {
        return None;
    }
    let confirm = name_of(last);
    (!is_confirmed(gateway, last)).then_some(MassRemoval { removed, of: before.len(), confirm })
}

fn name_of(last: &Snapshot) -> String {
    last.revision.0.chars().take(12).collect()
}

fn is_confirmed(gateway: &MailGateway, last: &Snapshot) -> bool {
    gateway.metadata.annotations.get(CONFIRM_REMOVAL).is_some_and(|value| *value == name_of(last))
}

/// Those of `removed` that nobody is asked about again: all, at a confirmation; later, those that it was for.
pub(super) fn confirmed(
    inputs: &Inputs,
    gateway: &MailGateway,
    removed: &BTreeMap<DomainPattern, i64>,
) -> BTreeSet<String> {
    let Some(last) = inputs.last.as_deref() else {
        return BTreeSet::new();
    };
    let all = is_confirmed(gateway, last);
    let domains = removed.keys().map(ToString::to_string);
    domains.filter(|domain| all || last.confirmed.contains(domain)).collect()
}

/// The domains that answer 451 for a while: those that left earlier and those that leave now, until `until`.
pub(super) fn removed(
    inputs: &Inputs,
    known: &BTreeMap<DomainPattern, Arc<Domain>>,
    until: i64,
) -> BTreeMap<DomainPattern, i64> {
    let Some(last) = inputs.last.as_deref() else {
        return BTreeMap::new();
    };
    let earlier = last
        .removed
        .iter()
        .filter(|(_, until)| **until > inputs.now)
        .filter_map(|(text, until)| Some((DomainPattern::parse_any(text).ok()?, *until)));
    let mut removed: BTreeMap<DomainPattern, i64> = earlier.collect();
    removed.extend(all_patterns(last).into_iter().map(|pattern| (pattern, until)));
    removed.retain(|pattern, until| *until > inputs.now && !known.contains_key(pattern));
    removed
}

fn all_patterns(snapshot: &Snapshot) -> BTreeSet<DomainPattern> {
    snapshot.domains.values().flat_map(|object| domain::patterns(&object.spec.domains)).collect()
}

// === impl MassRemoval ===

impl fmt::Display for MassRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { removed, of, confirm } = self;
        write!(
            f,
            "this would remove {removed} of {of} mail domains, so the last policy stays; if it is meant, annotate the \
             MailGateway with {CONFIRM_REMOVAL}: \"{confirm}\""
        )
    }
}
