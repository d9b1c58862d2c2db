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

/// Whether the plan must wait.
pub(super) fn hold(
    inputs: &Inputs,
    gateway: &MailGateway,
    accepted: &BTreeMap<ObjectRef, Accepted>,
) -> Option<MassRemoval> {
    let last = inputs.last.as_deref()?;
    let before = all_patterns(last);
    let after: BTreeSet<&DomainPattern> = accepted
        .values()
        .flat_map(|form| form.compiled.patterns.iter().map(|(pattern, _)| pattern))
        .collect();
    let removed = before.iter().filter(|pattern| !after.contains(pattern)).count();
    if removed < FEWEST || removed * 2 <= before.len() {
        return None;
    }
    let confirm: String = last.revision.0.chars().take(12).collect();
    let confirmed = gateway.metadata.annotations.get(CONFIRM_REMOVAL).is_some_and(|value| *value == confirm);
    (!confirmed).then_some(MassRemoval { removed, of: before.len(), confirm })
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
