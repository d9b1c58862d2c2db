//! The status of a MailDomain.

use std::cmp::Reverse;

use torwart_api::{ConditionStatus, MailDomainStatus};
use torwart_proto::v1::UpstreamOutcomes;

use super::compiled::{Judgement, Standing, clip, generation};
use super::holding::Holding;
use super::status::{Before, Judged};
use super::{reasons, time};
use crate::values::Seen;

/// All conditions, in the order in which they are shown.
pub(super) fn judge(
    seen: &Seen,
    standing: &Standing,
    holding: &Holding<'_>,
    there: Option<&MailDomainStatus>,
    before: Option<&Before>,
) -> Vec<Judged> {
    let programmed = holding.programmed(seen, &standing.accepted, Some(&standing.resolved), before);
    let reachable = upstream(seen, holding, there);
    let ready = ready(standing, &programmed, &reachable);
    vec![
        ("Accepted", standing.accepted.clone()),
        ("ResolvedRefs", standing.resolved.clone()),
        ("Programmed", programmed),
        ("UpstreamReachable", reachable),
        ("Ready", ready),
    ]
}

fn upstream(seen: &Seen, holding: &Holding<'_>, there: Option<&MailDomainStatus>) -> Judgement {
    let is_in_force = holding.snapshot.as_ref().is_some_and(|snapshot| {
        generation(snapshot, &seen.object).is_some() || snapshot.domains.contains_key(&seen.object)
    });
    if !is_in_force {
        return Judgement::unknown(reasons::NOT_IN_FORCE, "nothing of it is in force, so it gets no mail");
    }
    let name = format!("{}/{}", seen.object.namespace, seen.object.name);
    let outcomes: Vec<&UpstreamOutcomes> =
        holding.reports(seen).filter_map(|report| report.outcomes.get(&name)).collect();
    let newest = outcomes.iter().max_by_key(|outcomes| (outcomes.last_reported, Reverse(outcomes.reachable)));
    let Some(newest) = newest else {
        // Verdict pods forget when they are restarted; the upstream is as it was.
        let known = there.into_iter().flat_map(|there| &there.conditions).find(|condition| {
            condition.kind == "UpstreamReachable"
                && condition.status != ConditionStatus::Unknown
                && condition.observed_generation == Some(seen.generation)
        });
        return known.and_then(Judgement::again).unwrap_or_else(|| {
            Judgement::unknown(reasons::NO_MAIL, "no verdict pod has been told of mail for it yet")
        });
    };
    let same = || outcomes.iter().filter(|outcomes| outcomes.reachable == newest.reachable);
    let since = same().map(|outcomes| outcomes.since).min().unwrap_or(newest.since);
    let sum = |count: fn(&UpstreamOutcomes) -> u64| {
        outcomes.iter().fold(0_u64, |sum, o| sum.saturating_add(count(o)))
    };
    let said = match (newest.last_upstream.as_str(), newest.last_reply.as_str()) {
        ("", _) => String::new(),
        (upstream, "") => format!("; last: {upstream}"),
        (upstream, reply) => format!("; {upstream} said last: {}", clip(reply.to_owned(), 300)),
    };
    let counts = format!(
        "delivered {}, deferred {}, rejected {}, unreachable {}, unknown {}",
        sum(|o| o.delivered),
        sum(|o| o.deferred),
        sum(|o| o.rejected),
        sum(|o| o.unreachable),
        sum(|o| o.unknown)
    );
    let since = time(since);
    if newest.reachable {
        Judgement::holds(reasons::REACHED, format!("reached since {since}{said}; {counts}"))
    } else {
        Judgement::fails(reasons::UNREACHABLE, format!("not reached since {since}{said}; {counts}"))
    }
}

/// All in one: the first that fails says why.
fn ready(standing: &Standing, programmed: &Judgement, reachable: &Judgement) -> Judgement {
    if standing.accepted.status != ConditionStatus::True {
        return Judgement::fails(reasons::NOT_ACCEPTED, "see Accepted");
    }
    if standing.resolved.status != ConditionStatus::True {
        return Judgement::fails(reasons::REFS_NOT_RESOLVED, "see ResolvedRefs");
    }
    match programmed.status {
        ConditionStatus::True => {}
        status => {
            return Judgement {
                status,
                reason: reasons::NOT_PROGRAMMED,
                message: "see Programmed".to_owned(),
            };
        }
    }
    if reachable.status == ConditionStatus::False {
        return Judgement::fails(reasons::UPSTREAM_UNREACHABLE, "see UpstreamReachable");
    }
    Judgement::holds(reasons::READY, "it is in force, and nothing is known to be wrong")
}
