//! The status of the MailGateway.

use std::collections::{BTreeMap, BTreeSet};

use torwart_api::Manifest;
use torwart_proto::v1::GetStatusResponse;

use super::compiled::{Judgement, Standing, clip};
use super::holding::Holding;
use super::status::{Before, Judged};
use super::{reasons, time};
use crate::values::{Form, Seen};

/// How long a suspect client counts, in seconds.
const SUSPECT_FOR: i64 = 3600;

/// All conditions, in the order in which they are shown.
pub(super) fn judge(
    seen: &Seen,
    standing: &Standing,
    holding: &Holding<'_>,
    before: Option<&Before>,
    now: i64,
) -> Vec<Judged> {
    let answers: BTreeMap<&str, &GetStatusResponse> = holding
        .pods
        .ready
        .iter()
        .filter_map(|(name, report)| Some((name.as_str(), &report.as_ref().ok()?.status)))
        .collect();
    let lists = lists(seen, holding);
    vec![
        ("Accepted", standing.accepted.clone()),
        ("Programmed", holding.programmed(seen, &standing.accepted, None, before)),
        ("ClientIPPreserved", unanswered(holding).unwrap_or_else(|| client_ip(&answers, now))),
        ("ListsUsable", usable(&lists, holding, &answers)),
        ("ReputationClean", clean(&lists, holding, &answers)),
    ]
}

/// If nobody is there to say anything.
fn unanswered(holding: &Holding<'_>) -> Option<Judgement> {
    let ready = &holding.pods.ready;
    if ready.is_empty() {
        return Some(Judgement::unknown(reasons::NO_VERDICT_PODS, "there is no Ready verdict pod to ask"));
    }
    let errors: Vec<String> = ready
        .iter()
        .filter_map(|(name, report)| Some(format!("{name}: {}", report.as_ref().err()?)))
        .collect();
    (errors.len() == ready.len()).then(|| {
        let message = format!("no verdict pod answered; {}", errors.join("; "));
        Judgement::unknown(reasons::NO_ANSWER, clip(message, 1000))
    })
}

fn client_ip(answers: &BTreeMap<&str, &GetStatusResponse>, now: i64) -> Judgement {
    let suspects = answers.values().filter_map(|status| status.suspects.as_ref());
    let last = suspects.clone().map(|suspects| suspects.last_seen).max().unwrap_or(0);
    if last == 0 || now.saturating_sub(last) > SUSPECT_FOR {
        return Judgement::holds(
            reasons::PRESERVED,
            "no client had an address that no sender on the internet has, for an hour at least",
        );
    }
    let count = suspects.fold(0_u64, |sum, suspects| sum.saturating_add(suspects.count));
    let message = format!(
        "{count} questions were about clients whose address no sender on the internet has, the last at {}; set \
         externalTrafficPolicy: Local on the Service, or let the load balancer speak the PROXY protocol",
        time(last)
    );
    Judgement::fails(reasons::SUSPECT_ADDRESSES, message)
}

/// The names of the lists in the form that is in force.
fn lists(seen: &Seen, holding: &Holding<'_>) -> BTreeSet<String> {
    let spec = match (&holding.snapshot, &seen.form) {
        (Some(snapshot), _) => &snapshot.gateway.spec,
        (None, Form::Read(Manifest::MailGateway(gateway))) => &gateway.spec,
        (None, _) => return BTreeSet::new(),
    };
    let dns = spec.dns_lists.iter().map(|list| list.name.clone());
    dns.chain(spec.uri_lists.iter().map(|list| list.name.clone())).collect()
}

/// What is to be said before any list is looked at.
fn without_lists(
    lists: &BTreeSet<String>,
    holding: &Holding<'_>,
    answers: &BTreeMap<&str, &GetStatusResponse>,
) -> Option<Judgement> {
    if lists.is_empty() {
        return Some(Judgement::holds(reasons::NO_LISTS, "the MailGateway names no list"));
    }
    if let Some(unanswered) = unanswered(holding) {
        return Some(unanswered);
    }
    let told: BTreeSet<&str> =
        answers.values().flat_map(|status| &status.lists).map(|list| list.name.as_str()).collect();
    let untold: Vec<&str> = lists.iter().map(String::as_str).filter(|list| !told.contains(list)).collect();
    (!untold.is_empty()).then(|| {
        let message = format!("the verdict pods say nothing of the lists {}", untold.join(", "));
        Judgement::unknown(reasons::NOT_REPORTED, clip(message, 1000))
    })
}

fn usable(
    lists: &BTreeSet<String>,
    holding: &Holding<'_>,
    answers: &BTreeMap<&str, &GetStatusResponse>,
) -> Judgement {
    let bad: Vec<String> = answers
        .iter()
        .flat_map(|(pod, status)| status.lists.iter().map(move |list| (pod, list)))
        .filter(|(_, list)| !list.usable && lists.contains(&list.name))
        .map(|(pod, list)| format!("{} since {} at {pod}: {}", list.name, time(list.since), list.detail))
        .collect();
    if !bad.is_empty() {
        let message = format!("lists that fail their probes are not asked: {}", bad.join("; "));
        return Judgement::fails(reasons::LIST_UNUSABLE, clip(message, 1000));
    }
    without_lists(lists, holding, answers)
        .unwrap_or_else(|| Judgement::holds(reasons::USABLE, "every list answers its probes"))
}

fn clean(
    lists: &BTreeSet<String>,
    holding: &Holding<'_>,
    answers: &BTreeMap<&str, &GetStatusResponse>,
) -> Judgement {
    let listed: BTreeSet<String> = answers
        .values()
        .flat_map(|status| &status.own_addresses_listed)
        .map(|listing| format!("{} by {}", listing.address, listing.list))
        .collect();
    if !listed.is_empty() {
        let listed: Vec<String> = listed.into_iter().collect();
        let message = format!("lists name addresses of ours: {}; ask them why", listed.join(", "));
        return Judgement::fails(reasons::OWN_ADDRESS_LISTED, clip(message, 1000));
    }
    match without_lists(lists, holding, answers) {
        Some(judgement) if judgement.reason == reasons::NO_LISTS => {
            Judgement::unknown(reasons::NO_LISTS, "the MailGateway names no list that could say so")
        }
        Some(judgement) => judgement,
        None => Judgement::holds(reasons::NOT_LISTED, "no list names an address of ours"),
    }
}
