//! How a transaction ended: what good senders earn their trust with.

use std::sync::Arc;

use crate::{Envelope, Id, Mailbox, Peer, RouteDigest};

/// Told to the verdict once per transaction that reached an upstream. Losing one costs a sender some trust,
/// never a mail.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub peer: Arc<Peer>,
    pub transaction: Id,
    pub envelope: Arc<Envelope>,
    /// The recipients that the upstream accepted.
    pub recipients: Vec<Mailbox>,
    pub route: RouteDigest,
    /// The score that the message was delivered with.
    pub score: f32,
    pub result: DeliveryResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryResult {
    /// The upstream said 250 to the final dot.
    Delivered,
    /// The upstream said 4xx, or could not be spoken to.
    Deferred,
    /// The upstream said 5xx to the final dot.
    Rejected,
}
