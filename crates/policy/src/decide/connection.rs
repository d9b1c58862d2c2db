//! The verdict before the banner.

use std::net::IpAddr;
use std::time::Duration;

use torwart_core::{Action, ConnectionAnswer, Monitored, Reason};

use crate::model::{Enforcement, Policy, Range, RangeAction};

use super::wording;

/// The range that holds for a connection; a MailDomain's are not known yet.
pub fn connection_range(policy: &Policy, client: IpAddr, now: i64) -> Option<&Range> {
    policy.gateway.ranges.find(client, now).map(|range| &**range)
}

/// Who is allowed everything is not made to wait before the banner. Only the gateway's Reject ranges speak at the banner (554); everything else is answered at RCPT, where sender
/// and recipient are known and logged. In Monitor the second value is what would have been.
pub fn judge_connection(policy: &Policy, client: IpAddr, now: i64) -> (ConnectionAnswer, Option<Monitored>) {
    let range = connection_range(policy, client, now);
    let rejected = range.is_some_and(|range| range.action == RangeAction::Reject);
    let enforced = policy.gateway.enforcement == Enforcement::Enforce;
    let answer = ConnectionAnswer {
        refuse: (rejected && enforced).then(|| (wording::connection_rejected(), Reason::IpRange)),
        tls: range.and_then(|range| range.tls).unwrap_or_default(),
        greet_delay: if range.is_some_and(|range| range.action == RangeAction::Allow) {
            Duration::ZERO
        } else {
            policy.gateway.greet_delay
        },
        hidden: range.map(|range| range.hidden.clone()).unwrap_or_default(),
        revision: policy.revision.clone(),
        ask_connections: policy.asks_connections,
    };
    let monitored =
        (rejected && !enforced).then_some(Monitored { action: Action::Reject, reason: Reason::IpRange });
    (answer, monitored)
}
