//! `softBounce`: which of an upstream's 5xx the client hears as 450, so that a new route with a mistake in it bounces no
//! mail.
//!
//! A route counts as right once this process has delivered a message through it. That is remembered in memory only and
//! by each process for itself: after a restart, and after a change of the route, the first messages are treated with
//! care again.

use std::collections::HashSet;
use std::sync::PoisonError;

use torwart_core::{DeliveryResult, Reason, Reply, Route, RouteDigest, SoftBounce};

use super::Upstreams;

/// How far a route's refusals are believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    pub(super) route: RouteDigest,
    mode: SoftBounce,
}

/// Routes that have delivered.
#[derive(Debug, Default)]
pub(super) struct Proven(HashSet<RouteDigest>);

/// Routes remembered. Policy decides how many there are, not mail; one that is forgotten proves itself again.
const REMEMBERED: usize = 16 * 1024;

// === impl Trust ===

impl Trust {
    pub(super) fn of(route: &Route) -> Self {
        Self { route: route.digest, mode: route.soft_bounce }
    }
}

// === impl Upstreams ===

impl Upstreams {
    /// Turns a 5xx into 450 unless the route is to be believed. The enhanced code keeps its subject and detail
    /// (RFC 3463 section 2). What is reported of it is then a deferral: whoever made the route should see why its mail
    /// waits.
    pub(super) fn soften(
        &self,
        trust: Trust,
        reply: &mut Reply,
        reason: &mut Reason,
        result: &mut Option<DeliveryResult>,
    ) {
        if reply.code < 500 {
            return;
        }
        let believed = match trust.mode {
            SoftBounce::Never => true,
            SoftBounce::Always => false,
            SoftBounce::UntilFirstDelivery => {
                self.proven.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&trust.route)
            }
        };
        if !believed {
            let (_, subject, detail) = reply.enhanced;
            *reply = Reply::new(450, (4, subject, detail), reply.text.clone());
            *reason = Reason::UpstreamDeferred;
            *result = Some(DeliveryResult::Deferred);
        }
    }

    /// A message was delivered through this route.
    pub(super) fn delivered(&self, trust: Trust) {
        if trust.mode == SoftBounce::UntilFirstDelivery {
            self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(trust.route);
        }
    }
}

// === impl Proven ===

impl Proven {
    fn insert(&mut self, route: RouteDigest) {
        if self.0.contains(&route) {
            return;
        }
        if self.0.len() >= REMEMBERED
            && let Some(other) = self.0.iter().next().copied()
        {
            self.0.remove(&other);
        }
        self.0.insert(route);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_routes_is_bounded() {
        let mut proven = Proven::default();
        for number in 0..2 * REMEMBERED as u128 {
            proven.insert(RouteDigest(number.to_be_bytes()));
        }
        assert_eq!(proven.0.len(), REMEMBERED);
        assert!(proven.0.contains(&RouteDigest((2 * REMEMBERED as u128 - 1).to_be_bytes())));
    }
}
