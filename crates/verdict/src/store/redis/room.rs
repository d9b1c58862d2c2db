//! What a client may begin to wait for, and what it waits for although there is no record of it: the script judges,
//! and only this process knows the quotas.

use torwart_policy::greylist::Time;

use super::answer::Answer;
use crate::store::overflow::Overflow;
use crate::store::{Call, Tag};

/// A part of the client's quota, for one check. Dropped without a word it stays used up: the step may have happened.
#[derive(Debug)]
pub(super) struct Room<'a> {
    overflow: &'a Overflow,
    client: Tag,
    granted: u32,
    /// This process's time, as all times in the overflow: servers of a Cluster have each their own.
    at: Time,
}

/// In place of an age.
const NONE: u32 = u32::MAX;

// === impl Room ===

impl<'a> Room<'a> {
    pub(super) fn reserve(overflow: &'a Overflow, call: &Call, at: Time) -> Self {
        let wanted = u32::try_from(call.current.triplets.len()).unwrap_or(u32::MAX);
        let client = call.client;
        Self { overflow, client, granted: overflow.reserve(client, wanted, at), at }
    }

    /// How many records the script may write that wait and are not there yet.
    pub(super) fn granted(&self) -> u32 {
        self.granted
    }

    /// For each recipient the seconds since its first try, big-endian, if there was no room for that; empty if there
    /// was for all.
    pub(super) fn ages(&self, call: &Call) -> Vec<u8> {
        let age = |member| {
            let times = call.triplets(member).filter_map(|key| self.overflow.find(self.client, key, self.at));
            times.min().map_or(NONE, |time| self.at.saturating_sub(time))
        };
        let ages: Vec<u32> = call.members().map(age).collect();
        if ages.iter().all(|age| *age == NONE) {
            return Vec::new();
        }
        ages.into_iter().flat_map(u32::to_be_bytes).collect()
    }

    pub(super) fn used(self, call: &Call, answer: &Answer) {
        let begun = if answer.refused.is_some() { 0 } else { answer.begun };
        self.overflow.give_back(self.client, self.granted.saturating_sub(begun));
        self.overflow.give_back(self.client, answer.settled);
        for (place, age) in &answer.no_room {
            if let Some(key) = call.current.triplets.get(*place) {
                self.overflow.note(self.client, key, self.at.saturating_sub(*age), self.at);
            }
        }
    }

    /// Nothing was written.
    pub(super) fn unused(self) {
        self.overflow.give_back(self.client, self.granted);
    }
}
