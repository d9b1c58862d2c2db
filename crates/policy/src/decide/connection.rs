//! The verdict before the banner.

use std::net::IpAddr;

use torwart_core::{Action, ConnectionAnswer, Monitored, Reason};

use crate::model::{Enforcement, Policy, RangeAction};

use super::wording;

/// Only the gateway's Reject ranges speak at the banner (554); everything else is answered at RCPT, where sender
/// and recipient are known and logged. In Monitor the second value is what would have been.
pub fn judge_connection(policy: &Policy, client: IpAddr, now: i64) -> (ConnectionAnswer, Option<Monitored>) {
    let range = policy.gateway.ranges.find(client, now);
    let rejected = range.is_some_and(|range| range.action == RangeAction::Reject);
    let enforced = policy.gateway.enforcement == Enforcement::Enforce;
    let answer = ConnectionAnswer {
        refuse: (rejected && enforced).then(|| (wording::connection_rejected(), Reason::IpRange)),
        tls: range.and_then(|range| range.tls).unwrap_or_default(),
        revision: policy.revision.clone(),
        ask_connections: policy.asks_connections,
    };
    let monitored =
        (rejected && !enforced).then_some(Monitored { action: Action::Reject, reason: Reason::IpRange });
    (answer, monitored)
}
