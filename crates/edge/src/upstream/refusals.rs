//! Recipients that an upstream does not know: remembered, so that a dictionary attack does not reach it again and again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use torwart_core::{Reason, Reply, RouteDigest};

use super::soft_bounce::Trust;
use super::{RelayReply, Upstreams};

/// A bounded memory. All entries live equally long, so the oldest is the first to go.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    known: HashMap<Key, Known>,
    order: VecDeque<Key>,
}

/// The route and the path as the upstream is told it.
type Key = (RouteDigest, Arc<str>);

#[derive(Debug)]
struct Known {
    until: Instant,
    reply: Reply,
    upstream_reply: String,
}

/// Recipients remembered: at most 4 MB.
const REMEMBERED: usize = 10_000;

// === impl Upstreams ===

impl Upstreams {
    /// What the upstream said about this recipient within the last hour, if it did not know it.
    pub fn known_refusal(&self, route: RouteDigest, path: impl FnOnce() -> String) -> Option<RelayReply> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.known.is_empty() {
            return None;
        }
        let known = refusals.known.get(&(route, Arc::from(path())))?;
        (Instant::now() < known.until).then(|| RelayReply {
            accepted: false,
            client_reply: known.reply.clone(),
            upstream_reply: format!("(remembered) {}", known.upstream_reply),
            reason: Reason::UpstreamRejected,
            result: None,
        })
    }

    pub(super) fn remember_refusals(&self, trust: Trust, recipients: &[&str], replies: &[RelayReply]) {
        for (recipient, reply) in recipients.iter().zip(replies) {
            if reply.reason == Reason::UpstreamRejected && is_about_the_mailbox(&reply.client_reply) {
                let now = Instant::now();
                let known = Known {
                    until: now + self.settings.remember,
                    reply: reply.client_reply.clone(),
                    upstream_reply: reply.upstream_reply.clone(),
                };
                let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                refusals.insert((trust.route, Arc::from(*recipient)), known, now);
            }
        }
    }
}

/// A refusal that holds for every sender. RFC 3463 section 3.2: X.1.1 no such mailbox, X.1.6 moved, and Exchange's
/// X.1.10 (recipient not found). Any other, above all X.7.1, may be about this one sender, and must not keep another's
/// mail away.
fn is_about_the_mailbox(reply: &Reply) -> bool {
    matches!(reply.enhanced, (5, 1, 1 | 6 | 10))
}

// === impl Refusals ===

impl Refusals {
    fn insert(&mut self, key: Key, known: Known, now: Instant) {
        if let Some(there) = self.known.get_mut(&key) {
            *there = known;
            return;
        }
        while let Some(oldest) = self.order.front() {
            let live = self.known.get(oldest).is_some_and(|known| now < known.until);
            if live && self.order.len() < REMEMBERED {
                break;
            }
            self.known.remove(oldest);
            self.order.pop_front();
        }
        self.known.insert(key.clone(), known);
        self.order.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);

    fn insert(refusals: &mut Refusals, number: usize, now: Instant) {
        let known = Known {
            until: now + HOUR,
            reply: Reply::new(550, (5, 1, 1), "who"),
            upstream_reply: String::new(),
        };
        refusals.insert((RouteDigest([1; 16]), number.to_string().into()), known, now);
    }

    #[test]
    fn the_memory_is_bounded_and_the_oldest_goes_first() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for number in 0..REMEMBERED + 10 {
            insert(&mut refusals, number, now);
            insert(&mut refusals, number, now);
        }
        assert_eq!((refusals.known.len(), refusals.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!refusals.known.contains_key(&(RouteDigest([1; 16]), "9".into())));
        insert(&mut refusals, 0, now + HOUR);
        assert_eq!((refusals.known.len(), refusals.order.len()), (1, 1));
    }
}
