//! From the URLs to the addresses that are asked, again and again: pods come and go.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;
use torwart_core::Host;

use super::VerdictUrl;
use super::backends::Backends;
use super::balancer::{Target, jittered};
use super::metrics::{ClientMetrics, FailureKind};
use crate::resolve::Resolve;

/// Looks the names up for as long as it lives.
pub(super) struct Addresses {
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What the URLs stand for at the moment, one entry for each. An empty or failed answer leaves its entry as it was.
struct Found {
    of_urls: Mutex<Vec<Vec<Target>>>,
    backends: Arc<Backends>,
}

/// One name that is looked up.
struct Name {
    place: usize,
    name: Arc<str>,
    port: u16,
    encrypted: bool,
    refresh: Duration,
    resolver: Arc<dyn Resolve>,
    found: Arc<Found>,
    metrics: Arc<ClientMetrics>,
    /// That it has too many addresses was said.
    told: AtomicBool,
}

/// Addresses of one name that are used: each holds a connection.
pub(super) const LARGEST: usize = 256;
/// For one look-up, whoever does it; the system's resolver has a limit of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failed connection a name is looked up at once, but not more often than this.
const GAP: Duration = Duration::from_millis(500);

// === impl Addresses ===

impl Addresses {
    /// Must be called inside a tokio runtime.
    pub(super) fn watch(
        urls: &[VerdictUrl],
        has_tls: bool,
        refresh: Duration,
        resolver: &Arc<dyn Resolve>,
        backends: &Arc<Backends>,
        metrics: &Arc<ClientMetrics>,
    ) -> Self {
        let found = Arc::new(Found {
            of_urls: Mutex::new(vec![Vec::new(); urls.len()]),
            backends: Arc::clone(backends),
        });
        let mut names = Vec::new();
        for (place, url) in urls.iter().enumerate() {
            let encrypted = url.is_encrypted(has_tls);
            match &url.host {
                Host::Address(ip) => found.set(place, targets(&[*ip], url.port, encrypted)),
                Host::Name(name) => names.push(Name {
                    place,
                    name: Arc::clone(name),
                    port: url.port,
                    encrypted,
                    refresh,
                    resolver: Arc::clone(resolver),
                    found: Arc::clone(&found),
                    metrics: Arc::clone(metrics),
                    told: AtomicBool::new(false),
                }),
            }
        }
        backends.first_lookups().send_replace(names.len());
        let tasks = names.into_iter().map(|name| AbortOnDropHandle::new(tokio::spawn(name.watch())));
        Self { _tasks: tasks.collect() }
    }
}

// === impl Found ===

impl Found {
    fn set(&self, place: usize, targets: Vec<Target>) {
        let mut of_urls = self.of_urls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = of_urls.get_mut(place) {
            *entry = targets;
        }
        self.backends.set_targets(&union(&of_urls));
    }
}

// === impl Name ===

impl Name {
    async fn watch(self) {
        let mut stale = self.found.backends.stale();
        let mut is_failing = false;
        let mut is_first = true;
        loop {
            let looked = Instant::now();
            is_failing = self.look_up(is_failing).await;
            if is_first {
                self.found
                    .backends
                    .first_lookups()
                    .send_modify(|pending| *pending = pending.saturating_sub(1));
                is_first = false;
            }
            self.found.backends.refresh_metrics();
            let roll = self.found.backends.roll();
            let wait = jittered(self.refresh, roll);
            if tokio::time::timeout(wait, stale.changed()).await.is_ok() {
                let gap = jittered(GAP, roll).min(self.refresh);
                tokio::time::sleep(gap.saturating_sub(looked.elapsed())).await;
                stale.mark_unchanged();
            }
        }
    }

    /// Whether it failed. Said once when it begins, and once when it is over.
    async fn look_up(&self, was_failing: bool) -> bool {
        let name = &*self.name;
        let why = match tokio::time::timeout(PATIENCE, self.resolver.addresses(name)).await {
            Err(_) => "no answer in time".to_owned(),
            Ok(Ok(found)) if !found.is_empty() => {
                if was_failing {
                    tracing::info!(name, addresses = found.len(), "the verdict's name is resolved again");
                }
                let used = targets(&found, self.port, self.encrypted);
                if found.len() > LARGEST && !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        name,
                        addresses = found.len(),
                        used = used.len(),
                        "the verdict's name has more addresses than are used; give the edges a name with fewer"
                    );
                }
                self.found.set(self.place, used);
                return false;
            }
            Ok(Ok(_)) => "no address".to_owned(),
            Ok(Err(error)) => error,
        };
        self.metrics.failed(FailureKind::Resolve);
        if !was_failing {
            tracing::warn!(name, why, "the verdict's name is not resolved; known addresses stay in use");
        }
        true
    }
}

/// Sorted, so that of too many every edge and every answer leaves out the same.
fn targets(ips: &[IpAddr], port: u16, encrypted: bool) -> Vec<Target> {
    let mut targets: Vec<Target> =
        ips.iter().map(|ip| Target { address: SocketAddr::new(*ip, port), encrypted }).collect();
    targets.sort_unstable();
    targets.dedup();
    targets.truncate(LARGEST);
    targets
}

/// An address that several URLs stand for is asked as the first of them says.
fn union(of_urls: &[Vec<Target>]) -> Vec<Target> {
    let mut all: Vec<Target> = Vec::new();
    let mut known = HashSet::new();
    for target in of_urls.iter().flatten() {
        if known.insert(target.address) {
            all.push(*target);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str, encrypted: bool) -> Target {
        Target { address: address.parse().unwrap(), encrypted }
    }

    #[test]
    fn an_address_is_used_once_and_as_the_first_url_says() {
        let of_urls = [
            vec![target("127.0.0.1:1", true), target("127.0.0.1:2", true)],
            vec![target("127.0.0.1:1", false)],
        ];
        assert_eq!(union(&of_urls), [target("127.0.0.1:1", true), target("127.0.0.1:2", true)]);
    }

    #[test]
    fn of_too_many_addresses_the_same_are_left_out_whatever_their_order() {
        let mut ips: Vec<IpAddr> =
            (0..400u32).map(|n| IpAddr::from((0x7f00_0000 + n).to_be_bytes())).collect();
        let some = targets(&ips, 1, false);
        ips.reverse();
        ips.push(ips[0]);
        assert_eq!(targets(&ips, 1, false), some);
        assert_eq!(some.len(), LARGEST);
    }
}
