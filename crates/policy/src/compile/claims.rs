//! Who has which mail domain.
//!
//! Claims are served in this order: the present holder of the domain, the older object, namespace and name. An object
//! that does not get all its domains gets none by its present form, and falls back to its last accepted one, if it
//! has one; that may free domains or claim others, so it goes on until nothing changes. Each round takes a form away
//! from somebody, which is why it ends.

use std::collections::{BTreeMap, BTreeSet};

use torwart_api::{ObjectRef, Time};

use super::FieldError;
use crate::domains::DomainPattern;

/// All claims of one compilation.
pub(crate) struct Claims<F> {
    candidates: Vec<Candidate<F>>,
    /// In files everyone is the administrator: names below each other are nobody's conflict.
    administrator: bool,
}

/// One object and the forms that it may take, the best first.
pub(crate) struct Candidate<F> {
    pub(crate) object: ObjectRef,
    pub(crate) created: Option<Time>,
    /// What it held in the last snapshot.
    pub(crate) held: BTreeSet<DomainPattern>,
    pub(crate) forms: Vec<F>,
}

/// What became of one.
pub(crate) struct Settled<F> {
    pub(crate) object: ObjectRef,
    pub(crate) form: Option<F>,
    /// Why a better form was not to be had.
    pub(crate) conflicts: Vec<FieldError>,
}

/// The domains that are given away so far, by labels from the right (`org.example.`), so that the names below one are
/// its neighbours.
#[derive(Default)]
struct Given<'c> {
    names: BTreeMap<String, Vec<(&'c DomainPattern, usize)>>,
}

// === impl Claims ===

impl<F> Claims<F> {
    pub(crate) fn new(administrator: bool) -> Self {
        Self { candidates: Vec::new(), administrator }
    }

    pub(crate) fn add(&mut self, candidate: Candidate<F>) {
        self.candidates.push(candidate);
    }

    pub(crate) fn settle(self, patterns: impl Fn(&F) -> &[(DomainPattern, String)]) -> Vec<Settled<F>> {
        let Self { mut candidates, administrator } = self;
        candidates.sort_by(|a, b| {
            let key = |c: &Candidate<F>| (c.created.is_none(), c.created, c.object.clone());
            key(a).cmp(&key(b))
        });
        // The form that each is tried with, and the conflicts of those it lost.
        let mut tried = vec![0usize; candidates.len()];
        let mut conflicts: Vec<Vec<FieldError>> = candidates.iter().map(|_| Vec::new()).collect();
        loop {
            let lost = serve(&candidates, &tried, administrator, &patterns);
            if lost.is_empty() {
                break;
            }
            for (index, found) in lost {
                if let (Some(form), Some(all)) = (tried.get_mut(index), conflicts.get_mut(index)) {
                    // Only the present form is the author's to mend.
                    if *form == 0 || all.is_empty() {
                        all.extend(found);
                    }
                    *form += 1;
                }
            }
        }
        candidates
            .into_iter()
            .zip(tried)
            .zip(conflicts)
            .map(|((mut candidate, form), conflicts)| Settled {
                object: candidate.object,
                form: (form < candidate.forms.len()).then(|| candidate.forms.swap_remove(form)),
                conflicts,
            })
            .collect()
    }
}

/// One round: who does not get what the form it is tried with asks for.
fn serve<F>(
    candidates: &[Candidate<F>],
    tried: &[usize],
    administrator: bool,
    patterns: &impl Fn(&F) -> &[(DomainPattern, String)],
) -> Vec<(usize, Vec<FieldError>)> {
    let claims = |holders: bool| {
        candidates.iter().zip(tried).enumerate().flat_map(move |(index, (candidate, form))| {
            let wanted = candidate.forms.get(*form).map(patterns).unwrap_or_default();
            wanted
                .iter()
                .filter(move |(pattern, _)| candidate.held.contains(pattern) == holders)
                .map(move |(pattern, path)| (index, pattern, path))
        })
    };
    let mut given = Given::default();
    let mut lost: BTreeMap<usize, Vec<FieldError>> = BTreeMap::new();
    for holders in [true, false] {
        for (index, pattern, path) in claims(holders) {
            let conflict = given.same(pattern).map(|other| (pattern, other)).or_else(|| {
                // Two that held their domains side by side keep them.
                if administrator || holders {
                    return None;
                }
                let foreign = |other: usize| namespace(candidates, other) != namespace(candidates, index);
                given.related(pattern, foreign)
            });
            match conflict {
                None => given.give(pattern, index),
                Some((theirs, other)) => {
                    let Some(other) = candidates.get(other).map(|other| &other.object) else {
                        continue;
                    };
                    let message = if theirs == pattern {
                        format!("is {pattern}, which {other} has")
                    } else {
                        format!("is {pattern}, which overlaps with {theirs} of {other} in another namespace")
                    };
                    lost.entry(index).or_default().push(FieldError { path: path.clone(), message });
                }
            }
        }
    }
    lost.into_iter().collect()
}

fn namespace<F>(candidates: &[Candidate<F>], index: usize) -> Option<&str> {
    candidates.get(index).map(|candidate| candidate.object.namespace.as_str())
}

// === impl Given ===

impl<'c> Given<'c> {
    fn give(&mut self, pattern: &'c DomainPattern, index: usize) {
        self.names.entry(reversed(pattern.name())).or_default().push((pattern, index));
    }

    fn same(&self, pattern: &DomainPattern) -> Option<usize> {
        let at = self.names.get(&reversed(pattern.name()))?;
        at.iter().find(|(given, _)| *given == pattern).map(|(_, index)| *index)
    }

    /// A domain of someone foreign that `pattern` lies below, or that it lies over as a wildcard.
    fn related(
        &self,
        pattern: &DomainPattern,
        foreign: impl Fn(usize) -> bool,
    ) -> Option<(&'c DomainPattern, usize)> {
        let key = reversed(pattern.name());
        let above = key.match_indices('.').map(|(at, _)| key.get(..=at).unwrap_or_default());
        for name in above {
            let given = self.names.get(name).into_iter().flatten();
            // At the name itself: the exact name and its wildcard, one of them foreign, lie below each other.
            if let Some(found) = given.copied().find(|(_, index)| foreign(*index)) {
                return Some(found);
            }
        }
        if !pattern.is_wildcard() {
            return None;
        }
        self.names
            .range(key.clone()..)
            .take_while(|(name, _)| name.starts_with(&key))
            .flat_map(|(_, given)| given.iter().copied())
            .find(|(_, index)| foreign(*index))
    }
}

/// `lists.example.org` as `org.example.lists.`: what is below a name begins with it.
fn reversed(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 1);
    for label in name.rsplit('.') {
        text.push_str(label);
        text.push('.');
    }
    text
}
