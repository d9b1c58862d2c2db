//! How many connections an upstream may have, and which of them wait for the next transaction.
//!
//! ```text
//!   enter (a permit, waiting up to 10 s) -> claim (an idle connection, or room for a new one)
//!                                             |
//!   park (fit for another transaction) <------+------> drop of the slot (closed)
//! ```
//!
//! Active and idle connections together never exceed the upstream's `maxConnections`: a permit is held while a
//! connection is active, and a new one pushes out the oldest idle one when there is no other room.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use torwart_core::{Upstream, UpstreamTls};

use super::connection::Connection;
use super::metrics::UpstreamMetrics;

/// One upstream (host, port and limit), shared by all routes that name it.
#[derive(Debug)]
pub(super) struct Gate {
    /// `host:port`
    pub(super) name: Arc<str>,
    maximum: usize,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    metrics: Arc<UpstreamMetrics>,
}

/// Connections are shared by transactions that would open them alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) tls: UpstreamTls,
    /// What we say in EHLO.
    pub(super) hello: Arc<str>,
}

/// The right to one active connection; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    gate: Arc<Gate>,
    _permit: OwnedSemaphorePermit,
    parked: bool,
}

#[derive(Debug, Default)]
struct State {
    active: usize,
    /// The oldest first.
    idle: Vec<Idle>,
    /// Addresses that did not take a connection: tried last until then.
    down: Vec<(SocketAddr, Instant)>,
    /// Addresses whose handshake failed: spoken to in clear text until then.
    clear: Vec<(SocketAddr, Instant)>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    until: Instant,
    _counted: IdleCount,
}

/// Counts one idle connection while it lives.
#[derive(Debug)]
struct IdleCount(Arc<UpstreamMetrics>);

/// Addresses remembered per upstream; a name with more is a mistake.
const REMEMBERED: usize = 64;

// === impl Gate ===

impl Gate {
    pub(super) fn new(upstream: &Upstream, metrics: Arc<UpstreamMetrics>) -> Self {
        let maximum = (upstream.max_connections.max(1) as usize).min(Semaphore::MAX_PERMITS);
        Self {
            name: Arc::from(upstream.to_string()),
            maximum,
            permits: Arc::new(Semaphore::new(maximum)),
            state: Mutex::default(),
            metrics,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to a connection; `None` when `until` has come.
    pub(super) async fn enter(self: &Arc<Self>, until: Instant) -> Option<Slot> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => timeout_at(until.into(), self.permits.clone().acquire_owned()).await.ok()?.ok()?,
        };
        self.state().active += 1;
        self.metrics.active().inc();
        Some(Slot { gate: self.clone(), _permit: permit, parked: false })
    }

    /// The idle connection of this kind that was used last, if one is still quiet and open. If there is none, the
    /// caller may open one: room has been made.
    pub(super) fn claim(&self, key: &PoolKey, now: Instant) -> Option<Box<Connection>> {
        let mut state = self.state();
        while let Some(place) = state.idle.iter().rposition(|idle| idle.connection.key == *key) {
            let Idle { mut connection, until, .. } = state.idle.remove(place);
            if now < until && connection.is_quiet() {
                return Some(connection);
            }
        }
        let excess = (state.active + state.idle.len()).saturating_sub(self.maximum).min(state.idle.len());
        let pushed_out: Vec<Idle> = state.idle.drain(..excess).collect();
        drop(state);
        for idle in pushed_out {
            idle.connection.farewell();
        }
        None
    }

    /// Keeps the connection for the next transaction and gives the slot back.
    pub(super) fn park(&self, mut slot: Slot, connection: Box<Connection>, until: Instant) {
        let counted = IdleCount::new(&self.metrics);
        let mut state = self.state();
        state.active = state.active.saturating_sub(1);
        slot.parked = true;
        state.idle.push(Idle { connection, until, _counted: counted });
        drop(state);
    }

    /// Closes what has been idle too long. Returns when the next one is due.
    pub(super) fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let (expired, kept): (Vec<_>, Vec<_>) = state.idle.drain(..).partition(|idle| idle.until <= now);
        let next = kept.iter().map(|idle| idle.until).min();
        state.idle = kept;
        drop(state);
        for idle in expired {
            idle.connection.farewell();
        }
        next
    }

    pub(super) fn is_unused(&self) -> bool {
        let state = self.state();
        state.active == 0 && state.idle.is_empty()
    }

    /// Those that failed lately go last, in the order in which they will be forgiven.
    pub(super) fn order(&self, addresses: &mut [SocketAddr], now: Instant) {
        let state = self.state();
        addresses.sort_by_key(|address| remembered(&state.down, *address, now));
    }

    pub(super) fn failed(&self, address: SocketAddr, until: Instant) {
        remember(&mut self.state().down, address, until);
    }

    pub(super) fn clear_text(&self, address: SocketAddr, until: Instant) {
        remember(&mut self.state().clear, address, until);
    }

    pub(super) fn is_clear_text(&self, address: SocketAddr, now: Instant) -> bool {
        remembered(&self.state().clear, address, now).is_some()
    }
}

fn remembered(list: &[(SocketAddr, Instant)], address: SocketAddr, now: Instant) -> Option<Instant> {
    list.iter().find(|(known, until)| *known == address && now < *until).map(|(_, until)| *until)
}

fn remember(list: &mut Vec<(SocketAddr, Instant)>, address: SocketAddr, until: Instant) {
    list.retain(|(known, _)| *known != address);
    if list.len() >= REMEMBERED {
        list.remove(0);
    }
    list.push((address, until));
}

// === impl Slot ===

impl Slot {
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.metrics.active().dec();
        if !self.parked {
            let mut state = self.gate.state();
            state.active = state.active.saturating_sub(1);
        }
    }
}

// === impl IdleCount ===

impl IdleCount {
    fn new(metrics: &Arc<UpstreamMetrics>) -> Self {
        metrics.idle().inc();
        Self(metrics.clone())
    }
}

impl Drop for IdleCount {
    fn drop(&mut self) {
        self.0.idle().dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use prometheus::Registry;
    use torwart_core::Host;

    fn mk_gate(max_connections: u32) -> Arc<Gate> {
        let upstream = Upstream {
            host: Host::Name("mx.example".into()),
            port: 25,
            priority: 0,
            weight: 1,
            max_connections,
        };
        Arc::new(Gate::new(&upstream, Arc::new(UpstreamMetrics::new(&Registry::new()).unwrap())))
    }

    #[tokio::test]
    async fn a_gate_lets_in_as_many_as_it_allows() {
        let gate = mk_gate(2);
        let now = Instant::now();
        let first = gate.enter(now).await;
        let second = gate.enter(now).await;
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter(now).await.is_none());
        drop(first);
        assert!(gate.enter(now).await.is_some());
    }

    #[tokio::test]
    async fn a_slot_given_back_lets_the_next_one_in() {
        let gate = mk_gate(1);
        let slot = gate.enter(Instant::now()).await.unwrap();
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(Instant::now() + Duration::from_secs(60)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(slot);
        assert!(waiting.await.unwrap());
        assert!(gate.is_unused());
    }

    #[test]
    fn an_address_that_failed_is_tried_last_and_never_left_out() {
        let gate = mk_gate(1);
        let now = Instant::now();
        let [a, b, c]: [SocketAddr; 3] =
            ["192.0.2.1:25", "192.0.2.2:25", "192.0.2.3:25"].map(|text| text.parse().unwrap());
        gate.failed(b, now + Duration::from_secs(30));
        gate.failed(a, now + Duration::from_secs(20));
        let mut order = [a, b, c];
        gate.order(&mut order, now);
        assert_eq!(order, [c, a, b]);
        let mut order = [a, b, c];
        gate.order(&mut order, now + Duration::from_secs(30));
        assert_eq!(order, [a, b, c]);
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let gate = mk_gate(1);
        let now = Instant::now();
        for port in 1..1000 {
            gate.clear_text(SocketAddr::from(([192, 0, 2, 1], port)), now + Duration::from_secs(600));
        }
        assert_eq!(gate.state().clear.len(), REMEMBERED);
        assert!(gate.is_clear_text(SocketAddr::from(([192, 0, 2, 1], 999)), now));
        assert!(!gate.is_clear_text(SocketAddr::from(([192, 0, 2, 1], 999)), now + Duration::from_secs(600)));
    }
}
