//! Counts of replies by verb and class, small enough to sit in every session.

use crate::Verb;

/// Replies since the last [`crate::Session::take_commands`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CommandCounts {
    /// For each verb the replies of class 2, 3, 4 and 5. A session that is asked after each event stays far below
    /// 255: its output is flushed before.
    counts: [[u8; 4]; Verb::ALL.len()],
}

// === impl CommandCounts ===

impl CommandCounts {
    /// `(verb, class of the reply, how many)`, without the zeros.
    pub fn iter(&self) -> impl Iterator<Item = (Verb, u8, u8)> {
        Verb::ALL
            .into_iter()
            .zip(self.counts)
            .flat_map(|(verb, classes)| (2..).zip(classes).map(move |(class, count)| (verb, class, count)))
            .filter(|&(_, _, count)| count > 0)
    }

    pub(super) fn record(&mut self, verb: Verb, class: u8) {
        let classes = self.counts.get_mut(verb as usize);
        if let Some(count) = classes.and_then(|classes| classes.get_mut(usize::from(class.wrapping_sub(2)))) {
            *count = count.saturating_add(1);
        }
    }
}
