//! How a transaction ended: what good senders earn their trust with.

use std::sync::Arc;

use crate::{Envelope, Id, Mailbox, Peer, RouteDigest};

/// Told to the verdict once per transaction that was to reach an upstream. Losing one costs a sender some trust,
/// never a mail.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub peer: Arc<Peer>,
    pub transaction: Id,
    pub envelope: Arc<Envelope>,
    /// The recipients that the upstream accepted; with [`DeliveryResult::Deferred`] and
    /// [`DeliveryResult::Unreachable`] also those that heard 4xx because of it.
    pub recipients: Vec<Mailbox>,
    pub route: RouteDigest,
    /// The score that the message was delivered with.
    pub score: f32,
    pub result: DeliveryResult,
    /// The upstream that spoke last, `host:port`; `None` if there was none.
    pub upstream: Option<Arc<str>>,
    /// What it said last, at most [`Delivery::LONGEST_REPLY`] characters.
    pub upstream_reply: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    /// The upstream said 250 to the final dot.
    Delivered,
    /// The upstream said 4xx, or a 5xx that its route does not believe yet, or all of its connections were in use.
    Deferred,
    /// The upstream said 5xx to the final dot.
    Rejected,
    /// No upstream could be spoken to, or what it said was a fault of our configuration.
    Unreachable,
    /// The reply to the final dot was lost.
    Unknown,
}

// === impl Delivery ===

impl Delivery {
    /// Characters of an upstream's reply that are passed on: enough for a person to recognise it.
    pub const LONGEST_REPLY: usize = 200;
}
