//! How many connections an upstream may have, and which of them wait for the next transaction.
//!
//! ```text
//!   enter (a permit, waiting up to 10 s) -> claim (an idle connection, or room for a new one)
//!                                             |
//!   park (fit for another transaction) <------+------> drop of the slot (closed)
//! ```
//!
//! Active and idle connections together never exceed the upstream's `maxConnections`: a slot is held while a
//! connection is active, and a new one pushes out the oldest idle one when there is no other room.
//!
//! Where more come than there are slots, they wait in line, and two rules keep a few clients from holding all of them:
//! a slot goes to the first one in line whose network holds less than half of them (if there is one), and for each one
//! in line, one transaction whose client is silent is asked to give way ([`Gate::wanted`]).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout_at;
use torwart_core::{ClientIdentity, Protocol, Upstream, UpstreamTls};

use super::connection::Connection;
use super::metrics::UpstreamMetrics;
use crate::permits::Network;

/// One upstream (host, port and limit), shared by all routes that name it.
#[derive(Debug)]
pub(super) struct Gate {
    /// `host:port`
    pub(super) name: Arc<str>,
    maximum: usize,
    /// Somebody came into the line.
    crowded: Notify,
    state: Mutex<State>,
    metrics: Arc<UpstreamMetrics>,
}

/// Connections are shared by transactions that would open them alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) protocol: Protocol,
    pub(super) tls: UpstreamTls,
    /// With any but `None` a connection is its client's alone, and never idle.
    pub(super) identity: ClientIdentity,
    /// What we say in EHLO.
    pub(super) hello: Arc<str>,
}

/// The right to one active connection; given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    gate: Arc<Gate>,
    network: Network,
    giving_way: bool,
    /// Among the active connections of the metrics: not while it waits to be taken.
    counted: bool,
    /// It does not count any more.
    released: bool,
}

/// One in line; out of it on drop.
struct InLine<'a> {
    gate: &'a Gate,
    ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    network: Network,
    slot: oneshot::Sender<Slot>,
}

/// An upstream that could not be opened lately.
#[derive(Debug)]
struct Trouble {
    until: Instant,
    /// One transaction is finding out whether it is over.
    probed: bool,
}

/// Whether an upstream is worth trying before the others of its route.
#[derive(Debug)]
pub(super) enum Standing {
    Good,
    /// It failed lately: the others first.
    Doubtful,
    /// It failed, and its time is over: whoever gets this finds out, and is the only one while it lives.
    Probe {
        _right: Probe,
    },
}

/// The right to be the one who finds out.
#[derive(Debug)]
pub(super) struct Probe(Arc<Gate>);

#[derive(Debug, Default)]
struct State {
    active: usize,
    /// The active ones by the network of the client.
    networks: HashMap<Network, usize>,
    /// The first one has waited longest. No longer than there are sessions.
    line: VecDeque<Waiter>,
    tickets: u64,
    /// Slots on their way to somebody in line.
    giving_way: usize,
    trouble: Option<Trouble>,
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
            crowded: Notify::new(),
            state: Mutex::default(),
            metrics,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to a connection; `None` when `until` has come. `network` is the client's.
    pub(super) async fn enter(self: &Arc<Self>, network: Network, until: Instant) -> Option<Slot> {
        let (ticket, slot) = {
            let mut state = self.state();
            if state.active < self.maximum && state.line.is_empty() {
                state.take(network);
                drop(state);
                return Some(self.slot(network).counted());
            }
            let (sender, slot) = oneshot::channel();
            state.tickets += 1;
            let ticket = state.tickets;
            state.line.push_back(Waiter { ticket, network, slot: sender });
            (ticket, slot)
        };
        let _place = InLine { gate: self, ticket };
        self.crowded.notify_one();
        timeout_at(until.into(), slot).await.ok()?.ok().map(Slot::counted)
    }

    fn slot(self: &Arc<Self>, network: Network) -> Slot {
        Slot { gate: self.clone(), network, giving_way: false, counted: false, released: false }
    }

    /// Free slots go to those in line.
    fn serve_line(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            if state.active >= self.maximum {
                return;
            }
            let Some(waiter) = state.next_in_line(self.maximum.div_ceil(2)) else { return };
            state.take(waiter.network);
            drop(state);
            // One that went away meanwhile drops the slot, and the next is served.
            let _ = waiter.slot.send(self.slot(waiter.network));
        }
    }

    /// Waits until somebody is in line to whom nobody gives way yet.
    pub(super) async fn wanted(&self) {
        loop {
            let crowded = self.crowded.notified();
            if self.state().is_wanting() {
                return;
            }
            crowded.await;
        }
    }

    /// Whether this upstream is to be tried in its turn.
    pub(super) fn standing(self: &Arc<Self>, now: Instant) -> Standing {
        match &mut self.state().trouble {
            None => Standing::Good,
            Some(trouble) if trouble.probed || now < trouble.until => Standing::Doubtful,
            Some(trouble) => {
                trouble.probed = true;
                Standing::Probe { _right: Probe(self.clone()) }
            }
        }
    }

    /// No connection could be opened: the others first until then.
    pub(super) fn not_opened(&self, until: Instant) {
        self.state().trouble = Some(Trouble { until, probed: false });
    }

    pub(super) fn opened(&self) {
        self.state().trouble = None;
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
        state.give_back(&mut slot);
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

// === impl State ===

impl State {
    fn take(&mut self, network: Network) {
        self.active += 1;
        *self.networks.entry(network).or_insert(0) += 1;
    }

    fn give_back(&mut self, slot: &mut Slot) {
        slot.released = true;
        self.active = self.active.saturating_sub(1);
        self.giving_way = self.giving_way.saturating_sub(usize::from(slot.giving_way));
        if let Entry::Occupied(mut held) = self.networks.entry(slot.network) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    fn is_wanting(&self) -> bool {
        self.line.len() > self.giving_way
    }

    /// The first whose network holds less than its share; the first at all, if there is none.
    fn next_in_line(&mut self, share: usize) -> Option<Waiter> {
        let held = |waiter: &Waiter| self.networks.get(&waiter.network).copied().unwrap_or(0);
        let place = self.line.iter().position(|waiter| held(waiter) < share).unwrap_or(0);
        self.line.remove(place)
    }
}

// === impl InLine, Probe ===

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.gate.state().line.retain(|waiter| waiter.ticket != self.ticket);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(trouble) = &mut self.0.state().trouble {
            trouble.probed = false;
        }
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    fn counted(mut self) -> Self {
        self.gate.metrics.active().inc();
        self.counted = true;
        self
    }

    /// Marks this slot as one that will soon be free; false if nobody needs it any more.
    pub(super) fn give_way(&mut self) -> bool {
        let mut state = self.gate.state();
        if !self.giving_way && state.is_wanting() {
            self.giving_way = true;
            state.giving_way += 1;
        }
        self.giving_way
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.counted {
            self.gate.metrics.active().dec();
        }
        let gate = self.gate.clone();
        if !self.released {
            gate.state().give_back(self);
        }
        gate.serve_line();
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
mod tests;
