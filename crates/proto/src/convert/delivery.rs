//! How a transaction ended.

use std::sync::Arc;

use torwart_core as core;

use super::{Malformed, parts, route};
use crate::v1;

/// Octets of `host:port`: a domain name (RFC 1035 section 2.3.4) with its port, and room to spare.
const LONGEST_UPSTREAM: usize = 300;

impl From<&core::Delivery> for v1::ReportOutcomeRequest {
    fn from(delivery: &core::Delivery) -> Self {
        let core::Delivery {
            peer,
            transaction,
            envelope,
            recipients,
            route,
            score,
            result,
            upstream,
            upstream_reply,
        } = delivery;
        let outcome = match result {
            core::DeliveryResult::Delivered => v1::Outcome::Delivered,
            core::DeliveryResult::Deferred => v1::Outcome::Deferred,
            core::DeliveryResult::Rejected => v1::Outcome::Rejected,
            core::DeliveryResult::Unreachable => v1::Outcome::Unreachable,
            core::DeliveryResult::Unknown => v1::Outcome::Unknown,
        };
        Self {
            peer: Some(parts::peer(peer)),
            transaction_id: parts::id(*transaction),
            envelope: Some(parts::envelope(envelope)),
            recipients: recipients.iter().map(parts::mailbox).collect(),
            route: route.0.to_vec(),
            score: *score,
            outcome: outcome.into(),
            upstream: parts::text(upstream.as_ref()),
            upstream_reply: upstream_reply
                .as_ref()
                .map(|reply| reply.chars().take(core::Delivery::LONGEST_REPLY).collect()),
            // nobody counts them before unknown recipients are rated
            refused_recipients: Vec::new(),
        }
    }
}

impl TryFrom<v1::ReportOutcomeRequest> for core::Delivery {
    type Error = Malformed;

    fn try_from(request: v1::ReportOutcomeRequest) -> Result<Self, Malformed> {
        let v1::ReportOutcomeRequest {
            peer,
            transaction_id,
            envelope,
            recipients,
            route,
            score,
            outcome,
            upstream,
            upstream_reply,
            refused_recipients: _,
        } = request;
        let result = match v1::Outcome::try_from(outcome) {
            Ok(v1::Outcome::Delivered) => core::DeliveryResult::Delivered,
            Ok(v1::Outcome::Deferred) => core::DeliveryResult::Deferred,
            Ok(v1::Outcome::Rejected) => core::DeliveryResult::Rejected,
            Ok(v1::Outcome::Unreachable) => core::DeliveryResult::Unreachable,
            Ok(v1::Outcome::Unknown) => core::DeliveryResult::Unknown,
            Ok(v1::Outcome::Unspecified | v1::Outcome::NoRecipient) | Err(_) => {
                return Err(Malformed::new("outcome", "this build does not know the value"));
            }
        };
        if !score.is_finite() {
            return Err(Malformed::new("score", "it is no number"));
        }
        if upstream.as_ref().is_some_and(|upstream| upstream.len() > LONGEST_UPSTREAM) {
            return Err(Malformed::new("upstream", "it is too long"));
        }
        let is_long = |reply: &String| reply.chars().nth(Self::LONGEST_REPLY).is_some();
        if upstream_reply.as_ref().is_some_and(is_long) {
            return Err(Malformed::new("upstream_reply", "it has more than 200 characters"));
        }
        Ok(Self {
            peer: parts::to_peer(peer)?,
            transaction: parts::to_id(&transaction_id, "transaction_id")?,
            envelope: parts::to_envelope(envelope)?,
            recipients: parts::to_recipients(recipients)?,
            route: route::to_digest(&route, "route")?,
            score,
            result,
            upstream: upstream.map(Arc::from),
            upstream_reply: upstream_reply.map(Arc::from),
        })
    }
}
