//! The SMTP client's side: connections to the mail servers behind the gateway, and one transaction at a time on them.
//!
//! ```text
//!   Upstreams::begin -> order of upstreams -> pool::Gate -> idle connection, or dial (dns, connect, tls, greeting)
//!         |                                                        |
//!         v                                                        v
//!       Relay: recipients -> data -> body.. -> finish        connection::Connection over smtp::client::Client
//!         |
//!         v
//!   reply_table: (stage, upstream's code) -> what the client hears
//! ```
//!
//! Nothing here says 250 for the upstream, keeps a message, or tells a client what the upstream wrote.

mod connection;
mod dial;
mod identity;
mod metrics;
mod order;
mod pool;
mod refusals;
mod relay;
mod reply_table;
mod setback;
mod soft_bounce;
mod stream;
mod tls;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use torwart_core::{ClientIdentity, DeliveryResult, Host, Reason, Reply, Route, Upstream};

pub use self::identity::ClientFacts;
pub use self::metrics::{FailureKind, UpstreamMetrics};
pub(crate) use self::relay::LAST_REPLY;
pub(crate) use self::relay::RECIPIENT_ACCEPTED;
pub use self::relay::{DataReply, Final, Kept, Relay};

use self::connection::Connection;
use self::dial::Dialer;
use self::pool::{Gate, PoolKey, Slot, Standing};
use self::refusals::Refusals;
use self::setback::Setback;
use self::soft_bounce::{Proven, Trust};
use crate::permits::Network;

/// Time limits and bounds towards upstreams. All have defaults; none is a flag.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// How long an unused connection is kept. Less than any server's own limit (postfix: 300 s).
    pub idle: Duration,
    /// Transactions on one connection, after which it is closed, so that a moved upstream is found again.
    pub transactions: u32,
    /// Idle connections kept for all upstreams together.
    pub max_idle: usize,
    /// For a name's addresses.
    pub resolve: Duration,
    /// For a TCP connection to one address.
    pub connect: Duration,
    /// From the TCP connection to the answer to EHLO, STARTTLS included. RFC 5321 section 4.5.3.2.1 has 5 min for the
    /// banner alone; our client waits 60 s for all upstreams together.
    pub greeting: Duration,
    /// The wait for a free connection of an upstream that is used to its limit.
    pub busy: Duration,
    /// How long an address that took no connection, and an upstream that could not be opened, are tried last.
    pub ejection: Duration,
    /// How long a client may be silent inside a transaction while others wait for the upstream's connections. Then its
    /// transaction gives way. Much longer than a client at work needs from one command to the next.
    pub patience: Duration,
    /// How long an address whose STARTTLS failed is spoken to in clear text (mode Opportunistic).
    pub clear_text: Duration,
    /// How long an upstream is not asked again about a recipient that it does not know.
    pub remember: Duration,
    /// From DATA to its answer (RFC 5321 section 4.5.3.2.4).
    pub data: Duration,
    /// For one block of the message to be taken (RFC 5321 section 4.5.3.2.5).
    pub block: Duration,
    /// From one NOOP to the next while a message is held. Servers give up after 5 min (RFC 5321 section 4.5.3.2.7), some
    /// earlier.
    pub noop: Duration,
    /// For the answer to NOOP, and to RSET, after which an aborted transaction's connection is used again.
    pub reset: Duration,
}

/// All upstreams of this process: connections, resolver and TLS configurations.
#[derive(Debug)]
pub struct Upstreams {
    settings: UpstreamSettings,
    metrics: Arc<UpstreamMetrics>,
    dialer: Dialer,
    registry: Mutex<Registry>,
    /// Routes through which this process has delivered.
    proven: Mutex<Proven>,
    refusals: Mutex<Refusals>,
    rotation: order::Rotation,
}

#[derive(Debug, Default)]
struct Registry {
    gates: HashMap<(Host, u16, u32), Arc<Gate>>,
    /// A task closes idle connections in time; it lives while there are any.
    sweeping: bool,
}

/// What MAIL says upstream.
#[derive(Clone, Debug)]
pub struct MailFacts {
    /// Our own host name, for EHLO.
    pub hello: Arc<str>,
    /// The sender as the client wrote it; empty for `<>`.
    pub sender: Box<str>,
    /// Bytes, if the client declared them.
    pub size: Option<u64>,
    pub eight_bit: bool,
    pub smtputf8: bool,
    /// Its network's share of an upstream's connections is limited while others wait; and some routes pass on who it is.
    pub client: Arc<ClientFacts>,
}

/// What is the same for every upstream that a transaction is offered to.
#[derive(Clone, Copy)]
struct Offer<'a> {
    route: &'a Route,
    key: &'a PoolKey,
    mail: &'a MailFacts,
    recipients: &'a [&'a str],
    deadline: Instant,
}

/// The upstream's word on one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayReply {
    pub accepted: bool,
    pub client_reply: Reply,
    /// What the upstream said: one line, bounded, without control characters. For the log, never for the client.
    pub upstream_reply: String,
    pub reason: Reason,
    /// As in [`UpstreamRefusal`].
    pub result: Option<DeliveryResult>,
}

/// The upstream, or all of them, would not or could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamRefusal {
    pub reply: Reply,
    pub reason: Reason,
    /// `host:port`
    pub upstream: Option<String>,
    /// As in [`RelayReply`]; what the upstream did instead of answering stands in parentheses.
    pub upstream_reply: Option<String>,
    /// What is reported if the transaction ends with this; `None`: the upstream did its job, as with a 550 for a
    /// recipient that it does not know.
    pub result: Option<DeliveryResult>,
}

/// Upstreams remembered before unused ones are forgotten. Policy decides how many there are, not mail.
const GATES: usize = 1024;

// === impl UpstreamSettings ===

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            transactions: 100,
            max_idle: 1000,
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(10),
            greeting: Duration::from_secs(20),
            busy: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            patience: Duration::from_secs(5),
            clear_text: Duration::from_secs(600),
            remember: Duration::from_secs(3600),
            data: Duration::from_secs(120),
            block: Duration::from_secs(180),
            noop: Duration::from_secs(60),
            reset: Duration::from_secs(10),
        }
    }
}

// === impl Upstreams ===

impl Upstreams {
    pub fn new(settings: UpstreamSettings, metrics: Arc<UpstreamMetrics>) -> Arc<Self> {
        Arc::new(Self {
            dialer: Dialer::new(settings.clone(), metrics.clone()),
            settings,
            metrics,
            registry: Mutex::default(),
            proven: Mutex::default(),
            refusals: Mutex::default(),
            rotation: order::Rotation::default(),
        })
    }

    /// Opens or reuses a connection for `route`, tells it MAIL and these recipients, and returns their replies, one
    /// for each in that order. Upstreams are tried in turn until one takes the sender; those that could not be opened
    /// lately come last. All of that ends at `deadline`.
    ///
    /// Recipients that the upstream refuses one by one are no error: the relay stays open for others. With LMTP there is
    /// one final reply for each accepted recipient (RFC 2033 section 4.2), and one is waited for: `recipients` is one,
    /// and once it is accepted no other may follow.
    pub async fn begin(
        self: &Arc<Self>,
        route: &Arc<Route>,
        mail: &MailFacts,
        recipients: &[&str],
        deadline: Instant,
    ) -> Result<(Relay, Vec<RelayReply>), UpstreamRefusal> {
        let key = PoolKey {
            protocol: route.protocol,
            tls: route.tls.clone(),
            identity: route.client_identity,
            hello: mail.hello.clone(),
        };
        let offer = Offer { route, key: &key, mail, recipients, deadline };
        let mut worst: Option<UpstreamRefusal> = None;
        let order = self.rotation.order(&route.upstreams);
        let mut left: VecDeque<_> = order.into_iter().map(|upstream| (upstream, false)).collect();
        while let Some((upstream, put_off)) = left.pop_front() {
            let gate = self.gate(upstream);
            let standing = gate.standing(Instant::now());
            if matches!(standing, Standing::Doubtful) && !put_off && !left.is_empty() {
                left.push_back((upstream, true));
                continue;
            }
            match self.begin_at(&gate, upstream, offer).await {
                Ok(begun) => {
                    if !matches!(standing, Standing::Good) {
                        gate.opened();
                    }
                    return Ok(begun);
                }
                Err(setback) => {
                    let try_next = setback.try_next;
                    let refusal = self.counted(&gate, Trust::of(route), setback);
                    tracing::debug!(upstream = %gate.name, reply = %refusal.reply, why = ?refusal.upstream_reply,
                        "upstream did not begin");
                    if !try_next || worst.as_ref().is_none_or(|worst| says_more(&refusal, worst)) {
                        worst = Some(refusal);
                    }
                    if !try_next || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| refusal(None, Setback::misconfigured("the route has no upstream"))))
    }

    /// Begins a transaction again that gave way: its sender and `recipients` were accepted before. Any other answer
    /// than that is 451, never a 5xx: the client has its word already.
    pub async fn begin_again(
        self: &Arc<Self>,
        route: &Arc<Route>,
        mail: &MailFacts,
        recipients: &[&str],
        deadline: Instant,
    ) -> Result<Relay, UpstreamRefusal> {
        let (relay, replies) = match self.begin(route, mail, recipients, deadline).await {
            Ok(begun) => begun,
            Err(refusal) if refusal.reply.code == 451 => return Err(refusal),
            Err(UpstreamRefusal { upstream, upstream_reply, .. }) => {
                let setback = Setback::changed_its_mind(upstream_reply.unwrap_or_default());
                return Err(UpstreamRefusal { upstream, ..refusal(None, setback) });
            }
        };
        match replies.into_iter().find(|reply| !reply.accepted) {
            None => Ok(relay),
            Some(other) => {
                let upstream = Some(relay.upstream().to_owned());
                relay.abandon();
                let setback = Setback::changed_its_mind(other.upstream_reply);
                Err(UpstreamRefusal { upstream, ..refusal(None, setback) })
            }
        }
    }

    async fn begin_at(
        self: &Arc<Self>,
        gate: &Arc<Gate>,
        upstream: &Upstream,
        offer: Offer<'_>,
    ) -> Result<(Relay, Vec<RelayReply>), Setback> {
        let Offer { route, key, mail, recipients, deadline } = offer;
        let now = Instant::now();
        let until = deadline.min(now + self.settings.busy);
        let slot =
            gate.enter(Network::of(mail.client.address.ip()), until).await.ok_or_else(Setback::busy)?;
        let Some(connection) = gate.claim(key, now) else {
            return self.begin_new(gate, slot, upstream, offer).await;
        };
        let mut relay = Relay::new(self.clone(), slot, connection, Trust::of(route));
        match relay.begin(mail, recipients, deadline).await {
            Err(setback) if relay.died_before_mail(&setback) => {
                // Idle connections are closed by servers at any time; nobody needs to know.
                self.metrics.failed(FailureKind::Closed);
                let slot = relay.into_slot();
                self.begin_new(gate, slot, upstream, offer).await
            }
            result => result.map(|replies| (relay, replies)),
        }
    }

    async fn begin_new(
        self: &Arc<Self>,
        gate: &Gate,
        slot: Slot,
        upstream: &Upstream,
        offer: Offer<'_>,
    ) -> Result<(Relay, Vec<RelayReply>), Setback> {
        let Offer { route, key, mail, recipients, deadline } = offer;
        // Boxed: resolver and handshake are large, and most transactions reuse a connection.
        let connection = Box::pin(self.dialer.dial(gate, key, &mail.client, upstream, deadline)).await?;
        let mut relay = Relay::new(self.clone(), slot, connection, Trust::of(route));
        let replies = relay.begin(mail, recipients, deadline).await?;
        Ok((relay, replies))
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, upstream: &Upstream) -> Arc<Gate> {
        let mut registry = self.registry();
        let key = (upstream.host.clone(), upstream.port, upstream.max_connections);
        if let Some(gate) = registry.gates.get(&key) {
            return gate.clone();
        }
        if registry.gates.len() >= GATES {
            registry.gates.retain(|_, gate| Arc::strong_count(gate) > 1 || !gate.is_unused());
        }
        let gate = Arc::new(Gate::new(upstream, self.metrics.clone()));
        registry.gates.insert(key, gate.clone());
        gate
    }

    fn counted(&self, gate: &Gate, trust: Trust, mut setback: Setback) -> UpstreamRefusal {
        if let Some(kind) = setback.failure {
            self.metrics.failed(kind);
        }
        self.soften(trust, &mut setback.reply, &mut setback.reason, &mut setback.result);
        refusal(Some(&gate.name), setback)
    }

    /// Keeps a connection that is fit for another transaction: of one that was told who its client is, there is none.
    fn park(self: &Arc<Self>, slot: Slot, mut connection: Box<Connection>) {
        let idle = usize::try_from(self.metrics.idle().get()).unwrap_or(0);
        if connection.key.identity != ClientIdentity::None
            || connection.transactions >= self.settings.transactions
            || idle >= self.settings.max_idle
            || !connection.is_quiet()
        {
            connection.farewell();
            return;
        }
        connection.shrink();
        let gate = slot.gate().clone();
        gate.park(slot, connection, Instant::now() + self.settings.idle);
        if !std::mem::replace(&mut self.registry().sweeping, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what has been idle too long; `None` when nothing is idle any more and the task may end.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut registry = self.registry();
        let next = registry.gates.values().filter_map(|gate| gate.sweep(now)).min();
        registry.sweeping = next.is_some();
        next
    }
}

async fn sweep(upstreams: Weak<Upstreams>) {
    while let Some(next) = upstreams.upgrade().and_then(|upstreams| upstreams.sweep(Instant::now())) {
        tokio::time::sleep_until(next.into()).await;
    }
}

/// Of upstreams that gave way to the next. One that could be reached says more about what is wrong than one that could
/// not; but as long as one of them may take the mail later, no other's refusal is the last word.
fn says_more(refusal: &UpstreamRefusal, than: &UpstreamRefusal) -> bool {
    match (refusal.reply.code >= 500, than.reply.code >= 500) {
        (false, true) => true,
        (true, false) => false,
        _ => than.reason == Reason::UpstreamUnreachable,
    }
}

fn refusal(upstream: Option<&Arc<str>>, setback: Setback) -> UpstreamRefusal {
    let Setback { reply, reason, upstream_reply, try_next: _, failure: _, result } = setback;
    UpstreamRefusal { reply, reason, upstream: upstream.map(|name| name.to_string()), upstream_reply, result }
}

#[cfg(test)]
mod tests;
