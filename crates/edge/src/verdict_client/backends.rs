//! The backends at work: the balancer behind a lock, with a channel for each target.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::transport::Channel;
use torwart_proto::channel::{self, ChannelSettings};
use torwart_proto::tls::ClientTls;
use torwart_proto::v1::verdict_service_client::VerdictServiceClient;

use super::balancer::{Balancer, Choice, Ejection, End, Lease, Target, Turn};
use super::metrics::ClientMetrics;
use crate::scatter::scatter;

pub(super) type Client = VerdictServiceClient<Channel>;

/// All that is known of the verdict's addresses.
pub(super) struct Backends {
    inner: Mutex<Inner>,
    tls: Option<Arc<ClientTls>>,
    channel: ChannelSettings,
    slice: Duration,
    dice: Dice,
    metrics: Arc<ClientMetrics>,
    /// Told when the addresses should be looked up again.
    stale: watch::Sender<()>,
    /// Names whose first look-up is still under way.
    first_lookups: watch::Sender<usize>,
}

struct Inner {
    balancer: Balancer,
    clients: HashMap<Target, Clients>,
}

/// A channel for questions, which are small and waited for, and one for messages, which would hold them up.
struct Clients {
    questions: Client,
    messages: Client,
}

/// Randomness for choices, not for secrets.
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

/// One call's hold on its backend. Dropped without an end, the call was given up: after a
/// [`Backends::slice`] that speaks against the backend, before it says nothing.
pub(super) struct Ticket<'a> {
    backends: &'a Backends,
    lease: Lease,
    /// Set aside in the balancer: it lasts as long as the client takes to bring its message.
    lasting: bool,
    ended: bool,
}

// === impl Backends ===

impl Backends {
    pub(super) fn new(
        tls: Option<Arc<ClientTls>>,
        channel: ChannelSettings,
        slice: Duration,
        ejection: Ejection,
        seed: u64,
        metrics: Arc<ClientMetrics>,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner { balancer: Balancer::new(ejection), clients: HashMap::new() }),
            tls,
            channel,
            slice,
            dice: Dice(AtomicU64::new(seed)),
            metrics,
            stale: watch::Sender::new(()),
            first_lookups: watch::Sender::new(0),
        }
    }

    /// Calls to targets that go are finished; their channels close after them.
    pub(super) fn set_targets(&self, targets: &[Target]) {
        let mut inner = self.lock();
        inner.clients.retain(|target, _| targets.contains(target));
        for &target in targets {
            inner.clients.entry(target).or_insert_with(|| self.connect(target));
        }
        let now = Instant::now();
        inner.balancer.set_targets(targets, now);
        self.metrics.backends(inner.balancer.count(now));
    }

    /// Nothing is connected before the first call.
    fn connect(&self, target: Target) -> Clients {
        let tls = self.tls.as_ref().filter(|_| target.encrypted);
        let client =
            || VerdictServiceClient::new(channel::connect(target.address, tls.cloned(), &self.channel));
        Clients { questions: client(), messages: client() }
    }

    /// `None`: all have been tried, or there is none.
    pub(super) fn take(&self, choice: Choice<'_>) -> Option<(Ticket<'_>, Client)> {
        self.take_for(choice, false)
    }

    /// The same for a message.
    pub(super) fn take_lasting(&self, choice: Choice<'_>) -> Option<(Ticket<'_>, Client)> {
        self.take_for(choice, true)
    }

    fn take_for(&self, choice: Choice<'_>, lasting: bool) -> Option<(Ticket<'_>, Client)> {
        let mut inner = self.lock();
        let lease = inner.balancer.choose(choice, self.dice.roll(), Instant::now())?;
        if lasting {
            inner.balancer.set_aside(lease);
        }
        let ticket = Ticket { backends: self, lease, lasting, ended: false };
        let clients = inner.clients.get(&lease.target);
        let client = clients.map(|clients| if lasting { &clients.messages } else { &clients.questions });
        match client.cloned() {
            Some(client) => Some((ticket, client)),
            None => {
                drop(inner); // the ticket's end takes the lock
                None
            }
        }
    }

    pub(super) fn has_other(&self, tried: &[Target]) -> bool {
        self.lock().balancer.has_other(tried, Instant::now())
    }

    pub(super) fn has_untried(&self, tried: &[Target]) -> bool {
        self.lock().balancer.has_untried(tried)
    }

    pub(super) fn refresh_metrics(&self) {
        let counts = self.lock().balancer.count(Instant::now());
        self.metrics.backends(counts);
    }

    pub(super) fn slice(&self) -> Duration {
        self.slice
    }

    /// A connection failed: the names may have other addresses by now.
    pub(super) fn look_up_again(&self) {
        self.stale.send_replace(());
    }

    pub(super) fn stale(&self) -> watch::Receiver<()> {
        self.stale.subscribe()
    }

    pub(super) fn roll(&self) -> u64 {
        self.dice.roll()
    }

    pub(super) fn first_lookups(&self) -> &watch::Sender<usize> {
        &self.first_lookups
    }

    /// Right after the start: waits until there is somebody to ask, or every name was looked up once.
    pub(super) async fn known(&self) {
        let mut pending = self.first_lookups.subscribe();
        while *pending.borrow_and_update() > 0 && self.lock().balancer.is_empty() {
            if pending.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Ticket ===

impl Ticket<'_> {
    pub(super) fn target(&self) -> Target {
        self.lease.target
    }

    pub(super) fn end(mut self, end: End) {
        self.settle(end);
    }

    fn settle(&mut self, end: End) {
        self.ended = true;
        let now = Instant::now();
        let mut inner = self.backends.lock();
        if self.lasting {
            inner.balancer.bring_back(self.lease);
        }
        let turn = inner.balancer.ended(self.lease, end, self.backends.dice.roll(), now);
        self.backends.metrics.backends(inner.balancer.count(now));
        drop(inner);
        let address = self.lease.target.address;
        match turn {
            Some(Turn::Ejected) => {
                tracing::warn!(%address, "a verdict failed too often, it is left alone for a while")
            }
            Some(Turn::Back) => tracing::info!(%address, "a verdict that had failed answers again"),
            None => {}
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let waited = self.lease.began.elapsed();
            // how long a message takes is its client's doing
            let is_slow = !self.lasting && waited >= self.backends.slice;
            self.settle(if is_slow { End::Failed } else { End::Open });
        }
    }
}

// === impl Dice ===

impl Dice {
    fn roll(&self) -> u64 {
        scatter(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
