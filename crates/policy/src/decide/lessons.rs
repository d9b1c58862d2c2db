//! What a delivery teaches the greylist.

use super::{Facts, Group, Teaches, group, screen};
use crate::model::Policy;

/// What the store is to remember of one delivery to one mail domain. The triplets of all members have passed.
#[derive(Debug)]
pub struct Lesson<'p> {
    pub group: Group<'p>,
    /// The sender becomes known to this mail domain, and its client counts one good delivery.
    pub trust: bool,
}

/// The lessons of a message that the upstream took. `facts.recipients` are the delivered ones, `score` is what
/// the message was delivered with.
///
/// Trust is earned by good mail only (a score below `tagAt`), never by the null sender, and never by mail to
/// recipients that take everything: who writes to the postmaster is not thereby known to everyone.
pub fn lessons<'p>(policy: &'p Policy, facts: &Facts<'_>, score: f32, now: i64) -> Vec<Lesson<'p>> {
    let screening = screen(policy, facts, now);
    let learning = screening.recipients.iter().enumerate().filter_map(|(index, screened)| {
        let target = screened.target.filter(|_| screened.teaches > Teaches::Nothing)?;
        Some((index, target))
    });
    let is_trusting = |index: &usize| {
        screening.recipients.get(*index).is_some_and(|screened| screened.teaches == Teaches::Trust)
    };
    group(facts, learning)
        .into_iter()
        .map(|group| {
            let good = score < group.target.domain.scoring.tag_at;
            let trust = good && facts.sender.is_some() && group.members.iter().any(is_trusting);
            Lesson { group, trust }
        })
        .collect()
}
