//! Routes that were fetched. A digest names its content, so nothing here goes stale.

use std::sync::Arc;

use moka::sync::Cache;
use tokio::sync::OnceCell;
use torwart_core::{RecipientsAnswer, Route, RouteDigest};

use super::balancer::Target;

pub(super) struct Routes {
    known: Cache<RouteDigest, Arc<Entry>>,
}

/// A route, or the way to it. While one session fetches it the others wait for the same answer.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) route: OnceCell<Arc<Route>>,
    /// Who named it, and so knows it: others may not have that policy yet.
    pub(super) named_by: Option<Target>,
}

/// Routes kept: twice the 10,000 mail domains that one installation is measured with. At most 1 KiB each, unless they
/// bring a certificate of their own.
const LARGEST: u64 = 20_000;

// === impl Routes ===

impl Routes {
    pub(super) fn new() -> Self {
        Self { known: Cache::new(LARGEST) }
    }

    /// Remembers who named the routes that are still to be fetched.
    pub(super) fn named(&self, answer: &RecipientsAnswer, by: Target) {
        for digest in answer.recipients.iter().filter_map(|verdict| verdict.route) {
            self.known.get_with(digest, || Arc::new(Entry { named_by: Some(by), ..Entry::default() }));
        }
    }

    pub(super) fn entry(&self, digest: RouteDigest) -> Arc<Entry> {
        self.known.get_with(digest, Arc::default)
    }
}
