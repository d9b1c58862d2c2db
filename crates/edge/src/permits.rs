//! How many clients at one time: in all, and from one network.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counters. Their size is bounded by the number of connections in all.
#[derive(Debug)]
pub(crate) struct Permits {
    max_total: usize,
    max_network: usize,
    total: AtomicUsize,
    networks: Mutex<HashMap<Network, usize>>,
}

/// One connection in all; given back on drop.
#[derive(Debug)]
pub(crate) struct TotalPermit(Arc<Permits>);

/// One connection of its network; given back on drop.
#[derive(Debug)]
pub(crate) struct NetworkPermit {
    permits: Arc<Permits>,
    network: Network,
}

/// What counts as one client: a /24 of IPv4, a /64 of IPv6. These are what greylisting takes by default, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 3]),
    V6([u8; 8]),
}

// === impl Permits ===

impl Permits {
    pub(crate) fn new(max_total: usize, max_network: usize) -> Arc<Self> {
        Arc::new(Self { max_total, max_network, total: AtomicUsize::new(0), networks: Mutex::default() })
    }

    /// `None` when there are enough connections already.
    pub(crate) fn total(self: &Arc<Self>) -> Option<TotalPermit> {
        self.total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < self.max_total).then_some(held + 1)
            })
            .is_ok()
            .then(|| TotalPermit(Arc::clone(self)))
    }

    /// `None` when this client's network has enough connections already. IPv4-mapped IPv6 is IPv4.
    pub(crate) fn network(self: &Arc<Self>, client: IpAddr) -> Option<NetworkPermit> {
        let network = Network::of(client);
        let mut networks = self.lock();
        let held = networks.entry(network).or_insert(0);
        if *held >= self.max_network {
            if *held == 0 {
                networks.remove(&network);
            }
            return None;
        }
        *held += 1;
        Some(NetworkPermit { permits: Arc::clone(self), network })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TotalPermit {
    fn drop(&mut self) {
        self.0.total.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for NetworkPermit {
    fn drop(&mut self) {
        let mut networks = self.permits.lock();
        if let Entry::Occupied(mut held) = networks.entry(self.network) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

// === impl Network ===

impl Network {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_permit_in_all_can_be_had_again_after_it_was_given_back() {
        let permits = Permits::new(2, 9);
        let first = permits.total();
        let second = permits.total();
        assert!(first.is_some() && second.is_some());
        assert!(permits.total().is_none());
        drop(first);
        assert!(permits.total().is_some());
    }

    #[test]
    fn a_network_s_share_is_its_own() {
        let cases = [
            ("192.0.2.1", "192.0.2.254", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("192.0.2.1", "::ffff:192.0.2.7", true),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (one, other, same) in cases {
            let permits = Permits::new(9, 1);
            let held = permits.network(ip(one));
            assert!(held.is_some());
            assert_eq!(permits.network(ip(other)).is_none(), same, "{one} {other}");
        }
    }

    #[test]
    fn a_network_without_connections_is_forgotten() {
        let permits = Permits::new(9, 2);
        let held: Vec<_> = (0..2).map(|_| permits.network(ip("192.0.2.1"))).collect();
        assert!(permits.network(ip("192.0.2.1")).is_none());
        drop(held);
        assert!(permits.lock().is_empty());
        assert!(Permits::new(9, 0).network(ip("192.0.2.1")).is_none());
    }
}
