//! Routes of policies that are no longer in force, for sessions that were told of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use torwart_core::{Route, RouteDigest};
use torwart_policy::Policy;

#[derive(Debug, Default)]
pub(super) struct RetiredRoutes(Mutex<HashMap<RouteDigest, Retired>>);

#[derive(Debug)]
struct Retired {
    route: Arc<Route>,
    at: i64,
}

/// Twice the longest session (an hour).
const KEPT_SECONDS: i64 = 2 * 3600;
/// A policy that is rewritten again and again must not fill the memory.
const MOST_ROUTES: usize = 50_000;

// === impl RetiredRoutes ===

impl RetiredRoutes {
    pub(super) fn get(&self, digest: &RouteDigest) -> Option<Arc<Route>> {
        self.lock().get(digest).map(|retired| Arc::clone(&retired.route))
    }

    /// Keeps what `before` had and `after` has not.
    pub(super) fn retire(&self, before: &Policy, after: &Policy, now: i64) {
        let mut routes = self.lock();
        routes
            .retain(|digest, retired| now - retired.at < KEPT_SECONDS && !after.routes.contains_key(digest));
        for (digest, route) in &before.routes {
            if routes.len() >= MOST_ROUTES {
                tracing::warn!(
                    "too many routes were replaced within two hours: sessions in progress may hear 451"
                );
                break;
            }
            if !after.routes.contains_key(digest) {
                routes.insert(*digest, Retired { route: Arc::clone(route), at: now });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RouteDigest, Retired>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
