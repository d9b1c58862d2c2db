//! Who has which mail domain.
//!
//! First everyone keeps what it held and still asks for. Then the older objects choose before the younger ones, and of
//! those of one age namespace and name decide. An object that does not get all it asks for gets none of it by its
//! present form, and falls back to its last accepted one, if it has one.
//!
//! What falls back takes domains back that others may have been given by then, so it is done in rounds: all who lose in
//! one fall together. An object that loses to one that itself loses later falls with it, and is told to try again.

use std::collections::{BTreeMap, BTreeSet};

use torwart_api::{ObjectRef, Time};

use super::{Cause, FieldError};
use crate::domains::DomainPattern;

/// All claims of one compilation.
pub(crate) struct Claims<F> {
    candidates: Vec<Candidate<F>>,
    /// In files everyone is the administrator: names below each other are nobody's conflict.
    administrator: bool,
}

/// One object.
pub(crate) struct Candidate<F> {
    pub(crate) object: ObjectRef,
    pub(crate) created: Option<Time>,
    /// What it held in the last snapshot.
    pub(crate) held: BTreeSet<DomainPattern>,
    /// What else its author asks for, in forms that are not acceptable.
    pub(crate) wished: Vec<DomainPattern>,
    /// `None` if it is not acceptable by itself.
    pub(crate) present: Option<F>,
    /// Whether its last accepted form may stand in.
    pub(crate) may_fall_back: bool,
}

/// What became of one.
pub(crate) struct Settled<F> {
    pub(crate) object: ObjectRef,
    pub(crate) form: Option<F>,
    /// Why its present form was not to be had.
    pub(crate) conflicts: Vec<FieldError>,
    /// What it asks for and has not got, though it is nobody else's either.
    pub(crate) open: Vec<DomainPattern>,
}

/// One attempt to serve everyone.
enum Served {
    /// Whose present form lost, and why; and what everyone has.
    All(BTreeMap<usize, Vec<FieldError>>, Given),
    /// These lost, and what they fall back to changes what others can have: begin again with that known.
    Again(Vec<usize>),
}

/// A chain of objects that each want what the next one has takes a round each. After so many, whoever wants what
/// anyone else wants falls back, so that nobody's chain costs the others their time.
const MOST_ROUNDS: usize = 32;

/// The domains that are given away so far, by labels from the right (`org.example.`), so that the names below one are
/// its neighbours.
#[derive(Default)]
struct Given {
    names: BTreeMap<String, Vec<(DomainPattern, usize)>>,
}

// === impl Claims ===

impl<F> Claims<F> {
    pub(crate) fn new(administrator: bool) -> Self {
        Self { candidates: Vec::new(), administrator }
    }

    pub(crate) fn add(&mut self, candidate: Candidate<F>) {
        self.candidates.push(candidate);
    }

    /// `last` reads the last accepted form of an object; it is asked only where that is needed.
    pub(crate) fn settle(
        self,
        patterns: impl Fn(&F) -> &[(DomainPattern, String)],
        last: impl Fn(&ObjectRef) -> Option<F>,
    ) -> Vec<Settled<F>> {
        self.settle_counted(patterns, last).0
    }

    /// Also says how many rounds it took.
    fn settle_counted(
        mut self,
        patterns: impl Fn(&F) -> &[(DomainPattern, String)],
        last: impl Fn(&ObjectRef) -> Option<F>,
    ) -> (Vec<Settled<F>>, usize) {
        self.candidates.sort_by(|a, b| {
            let key = |c: &Candidate<F>| (c.created.is_none(), c.created, c.object.clone());
            key(a).cmp(&key(b))
        });
        // Those who fall back, with what they fall back to.
        let mut fallen: BTreeMap<usize, Option<F>> = BTreeMap::new();
        let fallback = |index: usize, candidate: &Candidate<F>, fallen: &mut BTreeMap<usize, Option<F>>| {
            let form = if candidate.may_fall_back { last(&candidate.object) } else { None };
            fallen.insert(index, form);
        };
        for (index, candidate) in self.candidates.iter().enumerate().filter(|(_, c)| c.present.is_none()) {
            fallback(index, candidate, &mut fallen);
        }
        // Each round but the last adds somebody to the fallen, so there is a last one.
        let mut rounds = 0;
        let (mut conflicts, given) = loop {
            rounds += 1;
            let mut losers = match self.serve(&fallen, &patterns) {
                Served::All(conflicts, given) => break (conflicts, given),
                Served::Again(losers) => losers,
            };
            if rounds == MOST_ROUNDS {
                losers.extend(self.contested(&fallen, &patterns));
            }
            for index in losers {
                if let Some(candidate) = self.candidates.get(index).filter(|_| !fallen.contains_key(&index)) {
                    fallback(index, candidate, &mut fallen);
                }
            }
        };
        let mut open = self.open(&given, &fallen, &conflicts, &patterns);
        let settled = self
            .candidates
            .into_iter()
            .enumerate()
            .map(|(index, candidate)| {
                let mut conflicts = conflicts.remove(&index).unwrap_or_default();
                if conflicts.is_empty() && fallen.contains_key(&index) && candidate.present.is_some() {
                    // What stood in its way stood in somebody else's way too, and fell back itself.
                    let message =
                        "wants domains that others gave up only now; it will be tried again".to_owned();
                    conflicts.push(FieldError {
                        cause: Cause::DomainConflict,
                        ..FieldError::new("spec.domains", message)
                    });
                }
                let form = match fallen.remove(&index) {
                    Some(form) => form,
                    None if conflicts.is_empty() => candidate.present,
                    None if candidate.may_fall_back => last(&candidate.object),
                    None => None,
                };
                let open = open.remove(&index).unwrap_or_default();
                Settled { object: candidate.object, form, conflicts, open }
            })
            .collect();
        (settled, rounds)
    }

    /// What those whose present form does not hold ask for, as far as nobody has it and it touches nobody's.
    fn open(
        &self,
        given: &Given,
        fallen: &BTreeMap<usize, Option<F>>,
        lost: &BTreeMap<usize, Vec<FieldError>>,
        patterns: &impl Fn(&F) -> &[(DomainPattern, String)],
    ) -> BTreeMap<usize, Vec<DomainPattern>> {
        let out = |index: &usize| fallen.contains_key(index) || lost.contains_key(index);
        let mut open = BTreeMap::new();
        for (index, candidate) in self.candidates.iter().enumerate() {
            let present =
                candidate.present.as_ref().filter(|_| out(&index)).map(patterns).unwrap_or_default();
            let wanted = present.iter().map(|(pattern, _)| pattern).chain(&candidate.wished);
            let free = |pattern: &&DomainPattern| {
                given.same(pattern, |_| true).is_none() && self.conflict(given, index, pattern, "").is_none()
            };
            open.insert(index, wanted.filter(free).cloned().collect());
        }
        open
    }

    /// Who would lose something by falling back, and wants what anyone else has or wants.
    fn contested(
        &self,
        fallen: &BTreeMap<usize, Option<F>>,
        patterns: &impl Fn(&F) -> &[(DomainPattern, String)],
    ) -> Vec<usize> {
        let mut all = Given::default();
        for (index, candidate) in self.candidates.iter().enumerate() {
            let present = candidate.present.as_ref().map(patterns).unwrap_or_default();
            let new = present.iter().map(|(pattern, _)| pattern).filter(|new| !candidate.held.contains(*new));
            candidate.held.iter().chain(new).for_each(|pattern| all.give(pattern, index));
        }
        let contested = |(index, candidate): &(usize, &Candidate<F>)| {
            !candidate.held.is_empty()
                && candidate.present.as_ref().map(patterns).unwrap_or_default().iter().any(
                    |(pattern, path)| {
                        !candidate.held.contains(pattern)
                            && self.conflict(&all, *index, pattern, path).is_some()
                    },
                )
        };
        let standing = self.candidates.iter().enumerate().filter(|(index, _)| !fallen.contains_key(index));
        standing.filter(contested).map(|(index, _)| index).collect()
    }

    fn serve(
        &self,
        fallen: &BTreeMap<usize, Option<F>>,
        patterns: &impl Fn(&F) -> &[(DomainPattern, String)],
    ) -> Served {
        let mut given = Given::default();
        for (index, candidate) in self.candidates.iter().enumerate() {
            let form = fallen.get(&index).map_or(candidate.present.as_ref(), Option::as_ref);
            for (pattern, _) in form.map(patterns).unwrap_or_default() {
                if fallen.contains_key(&index) || candidate.held.contains(pattern) {
                    given.give(pattern, index);
                }
            }
        }
        let mut lost = BTreeMap::new();
        let mut losers = Vec::new();
        for (index, candidate) in self.candidates.iter().enumerate() {
            let wanted = candidate.present.as_ref().map(patterns).unwrap_or_default();
            let new: Vec<_> =
                wanted.iter().filter(|(pattern, _)| !candidate.held.contains(pattern)).collect();
            let conflicts: Vec<FieldError> = new
                .iter()
                .filter_map(|(pattern, path)| self.conflict(&given, index, pattern, path))
                .collect();
            if fallen.contains_key(&index) {
                // It falls back whatever happens; but its author should know why.
                lost.insert(index, conflicts);
            } else if conflicts.is_empty() {
                new.into_iter().for_each(|(pattern, _)| given.give(pattern, index));
            } else if candidate.held.is_empty() {
                lost.insert(index, conflicts);
            } else {
                losers.push(index);
            }
        }
        if !losers.is_empty() {
            return Served::Again(losers);
        }
        lost.retain(|_, conflicts| !conflicts.is_empty());
        Served::All(lost, given)
    }

    /// Why `index` can't have `pattern`.
    fn conflict(
        &self,
        given: &Given,
        index: usize,
        pattern: &DomainPattern,
        path: &str,
    ) -> Option<FieldError> {
        let namespace =
            |index: usize| self.candidates.get(index).map(|candidate| &candidate.object.namespace);
        let foreign = |other: usize| namespace(other) != namespace(index);
        let same = given.same(pattern, |other| other != index).map(|other| (pattern, other));
        let related = || if self.administrator { None } else { given.related(pattern, foreign) };
        let (theirs, other) = same.or_else(related)?;
        let other = &self.candidates.get(other)?.object;
        let message = if theirs == pattern {
            format!("is {pattern}, which {other} has")
        } else {
            format!("is {pattern}, which overlaps with {theirs} of {other} in another namespace")
        };
        Some(FieldError { cause: Cause::DomainConflict, ..FieldError::new(path, message) })
    }
}

// === impl Given ===

impl Given {
    fn give(&mut self, pattern: &DomainPattern, index: usize) {
        self.names.entry(reversed(pattern.name())).or_default().push((pattern.clone(), index));
    }

    /// Who of those that are `meant` has exactly this.
    fn same(&self, pattern: &DomainPattern, meant: impl Fn(usize) -> bool) -> Option<usize> {
        let at = self.names.get(&reversed(pattern.name()))?;
        at.iter().find(|(given, index)| given == pattern && meant(*index)).map(|(_, index)| *index)
    }

    /// A domain of someone foreign that `pattern` lies below, or that it lies over as a wildcard.
    fn related(
        &self,
        pattern: &DomainPattern,
        foreign: impl Fn(usize) -> bool,
    ) -> Option<(&DomainPattern, usize)> {
        let key = reversed(pattern.name());
        let above = key.match_indices('.').map(|(at, _)| key.get(..=at).unwrap_or_default());
        for name in above {
            let given = self.names.get(name).into_iter().flatten();
            // At the name itself: the exact name and its wildcard, one of them foreign, lie below each other.
            if let Some((found, index)) = given.into_iter().find(|(_, index)| foreign(*index)) {
                return Some((found, *index));
            }
        }
        if !pattern.is_wildcard() {
            return None;
        }
        self.names
            .range(key.clone()..)
            .take_while(|(name, _)| name.starts_with(&key))
            .flat_map(|(_, given)| given)
            .find(|(_, index)| foreign(*index))
            .map(|(found, index)| (found, *index))
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

#[cfg(test)]
mod tests;
