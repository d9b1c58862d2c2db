//! The verdict on facts: gather, then judge through a literal list of small functions.
//!
//! ```text
//!    Facts --screen--> Screening { Settled | needs greylisting }   no I/O needed so far
//!                           |
//!                     the store is asked, once per mail domain (`groups`)
//!                           |
//!                         judge --> RecipientsAnswer
//!
//!    Facts of a delivery --lessons--> what the store is to remember of it
//! ```
//!
//! What cannot be let pass (relaying, syntax, resource limits) is decided first and holds in Monitor too.

mod because;
mod connection;
mod guard;
mod judge;
mod lessons;
mod listed;
mod steps;
mod wording;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use torwart_core::{Action, CheckResult, Greylist, ListenerTls, Mailbox, Reason, Reply};

use crate::dns_lists::ListFinding;
use crate::greylist::{Identity, Judged, Params, identities};
use crate::model::{Domain, DomainMatch, Enforcement, Policy, Range, RangeAction};

pub use because::{Held, Level, Listed, Step};
pub use connection::{connection_range, judge_connection};
pub use guard::is_suspect;
pub use judge::judge;
pub use lessons::{Lesson, lessons};
use listed::Weighed;
use steps::Found;

/// All that is known about the transaction when its recipients are judged.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub client: IpAddr,
    /// The session is under TLS.
    pub encrypted: bool,
    pub helo: Option<&'a str>,
    /// `None` is the null sender.
    pub sender: Option<&'a Mailbox>,
    /// `SIZE=`, in bytes.
    pub declared_size: Option<u64>,
    pub recipients: &'a [Mailbox],
    /// How many recipients of this transaction were accepted before these.
    pub accepted_before: u32,
    /// What the checks said.
    pub checks: &'a [CheckResult],
    /// What the DNS lists said of the client that [`Screening::wanted_lists`] names.
    pub dns_lists: &'a [ListFinding],
    /// Who DNS has shown the client to be, the best first.
    pub verified: &'a [Identity],
    /// Addresses of the machines that this installation runs on.
    pub own_addresses: &'a [IpAddr],
}

/// The recipients, as far as they can be judged without the greylist.
#[derive(Debug)]
pub struct Screening<'p> {
    /// One for each recipient of the facts, in that order.
    pub recipients: Vec<Screened<'p>>,
    /// The client's address cannot be a sender's on the internet (see [`is_suspect`]), and no range names it.
    pub suspect: bool,
}

/// One recipient.
#[derive(Debug)]
pub struct Screened<'p> {
    pub target: Option<Target<'p>>,
    /// Where the mail goes if not to the recipient as written.
    pub deliver_to: Option<&'p Mailbox>,
    pub finding: Finding,
    pub score: f32,
    /// What a delivery to this recipient may teach.
    pub teaches: Teaches,
    /// For this mail domain the client's address is nobody's: no range of its own names it either.
    pub suspect: bool,
    /// What decided, unless a limit of the transaction does.
    pub step: Step,
    /// The range that holds for this recipient.
    pub range: Option<Held<'p>>,
    /// The entry of a list that decided.
    pub listed: Option<Listed<'p>>,
}

/// The part of the policy that names a recipient.
#[derive(Clone, Copy, Debug)]
pub struct Target<'p> {
    /// The mail domain as the manifest wrote it.
    pub pattern: &'p Arc<str>,
    pub domain: &'p Arc<Domain>,
    pub enforcement: Enforcement,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Holds in Monitor too.
    Final(Refusal),
    /// Refused, unless the domain only monitors.
    Refuse(Refusal),
    Accept {
        reason: Reason,
        greylist: Greylist,
    },
    /// The greylist decides.
    Greylist,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub action: Action,
    pub reason: Reason,
    pub reply: Reply,
}

/// What the store remembers of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teaches {
    Nothing,
    /// That this triplet was delivered: an exempt recipient vouches for itself only.
    Triplet,
    /// That this sender and this client are good as well.
    Trust,
}

/// The recipients of one mail domain that the greylist is asked about in one atomic step.
#[derive(Debug)]
pub struct Group<'p> {
    pub target: Target<'p>,
    pub identities: Vec<Identity>,
    pub params: Params,
    /// Indices into the recipients that were asked about.
    pub members: Vec<usize>,
}

/// What became of a group's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreylistWord {
    Judged(Judged),
    /// The store did not answer: `onStoreFailure` decides.
    Failed,
    /// The store was not asked, since the client's network asks too much at once: it waits, whatever
    /// `onStoreFailure` says, or a burst would get everything past the greylist.
    Overloaded,
}

/// What a step sees of one recipient.
struct Case<'a, 'p> {
    policy: &'p Policy,
    facts: &'a Facts<'a>,
    target: Target<'p>,
    recipient: &'a Mailbox,
    /// The range that holds for this recipient: the gateway's or, in its place, the domain's.
    range: Option<&'p Range>,
    /// The gateway's range says that this client must use TLS.
    requires_tls: bool,
    suspect: bool,
    score: f32,
    weighed: Weighed,
    now: i64,
}

/// Judges every recipient as far as that needs no greylist. `now` is in Unix seconds.
pub fn screen<'p>(policy: &'p Policy, facts: &Facts<'_>, now: i64) -> Screening<'p> {
    let gateway_range = connection_range(policy, facts.client, now);
    let requires_tls = gateway_range.is_some_and(|range| range.tls == Some(ListenerTls::Require));
    let unnatural = is_suspect(facts.client, facts.own_addresses);
    // Not `sum`, which makes -0.0 of nothing.
    let checked = facts.checks.iter().fold(0.0, |sum, check| sum + check.score);
    let recipients = facts
        .recipients
        .iter()
        .map(|recipient| match find_target(policy, recipient, now) {
            Err(refusal) => Screened::refused(refusal),
            Ok((target, deliver_to)) => {
                let gateways = gateway_range.map(|range| Held { level: Level::Gateway, range });
                let held = match gateway_range.map(|range| range.action) {
                    Some(RangeAction::Reject | RangeAction::Defer) => gateways,
                    Some(RangeAction::Allow | RangeAction::Check) | None => {
                        let domains = target.domain.ranges.find(facts.client, now);
                        domains.map(|range| Held { level: Level::Domain, range }).or(gateways)
                    }
                };
                let range = held.map(|held| held.range);
                let suspect = unnatural && range.is_none();
                let weighed = listed::weigh(&listed::Use { target, range, suspect }, facts.dns_lists);
                let score = checked + weighed.score;
                let case = Case {
                    policy,
                    facts,
                    target,
                    recipient,
                    range,
                    requires_tls,
                    suspect,
                    score,
                    weighed,
                    now,
                };
                let (step, Found { finding, teaches, listed }) = steps::walk(&case);
                let target = Some(target);
                Screened { target, deliver_to, finding, score, teaches, suspect, step, range: held, listed }
            }
        })
        .collect();
    Screening { recipients, suspect: unnatural && gateway_range.is_none() }
}

/// The mail domain that a recipient belongs to, and where its mail goes instead, if so.
fn find_target<'p>(
    policy: &'p Policy,
    recipient: &Mailbox,
    now: i64,
) -> Result<(Target<'p>, Option<&'p Mailbox>), Refusal> {
    let bare_postmaster = recipient.is_bare_postmaster();
    let deliver_to = if bare_postmaster {
        Some(policy.gateway.postmaster.as_ref().ok_or_else(wording::no_postmaster)?)
    } else {
        None
    };
    let domain = deliver_to.map_or(&*recipient.domain, |postmaster| &*postmaster.domain);
    match policy.domains.find(domain, now) {
        DomainMatch::Known { pattern, domain } => {
            let monitor = [policy.gateway.enforcement, domain.enforcement].contains(&Enforcement::Monitor);
            let enforcement = if monitor { Enforcement::Monitor } else { Enforcement::Enforce };
            Ok((Target { pattern, domain, enforcement }, deliver_to))
        }
        // Ours to repair, never the sender's loss: RFC 5321 section 4.5.1 has every server take this mail.
        _ if bare_postmaster => Err(wording::no_postmaster()),
        DomainMatch::Removed { until } if now < until => Err(wording::removed_domain()),
        DomainMatch::Held => Err(wording::policy_unavailable()),
        DomainMatch::Removed { .. } | DomainMatch::Unknown if policy.incomplete => {
            Err(wording::policy_unavailable())
        }
        DomainMatch::Removed { .. } | DomainMatch::Unknown => Err(wording::unknown_domain()),
    }
}

// === impl Screening ===

impl<'p> Screening<'p> {
    /// The questions that the greylist must answer before [`judge`]: one for each mail domain.
    pub fn groups(&self, facts: &Facts<'_>) -> Vec<Group<'p>> {
        group(
            facts,
            self.recipients.iter().enumerate().filter_map(|(index, screened)| {
                let target = screened.target.filter(|_| screened.finding == Finding::Greylist)?;
                Some((index, target))
            }),
        )
    }

    /// Who the client was taken for, if it can be anyone.
    pub fn identity(&self, facts: &Facts<'_>) -> Option<Identity> {
        let named = self.recipients.iter().filter(|screened| !screened.suspect);
        let target = named.filter_map(|screened| screened.target).next()?;
        let greylisting = &target.domain.greylisting;
        identities(facts.client, facts.helo, facts.sender.is_none(), facts.verified, greylisting)
            .into_iter()
            .next()
    }
}

fn group<'p>(facts: &Facts<'_>, members: impl Iterator<Item = (usize, Target<'p>)>) -> Vec<Group<'p>> {
    let mut groups: Vec<Group<'p>> = Vec::new();
    for (index, target) in members {
        if let Some(group) = groups.iter_mut().find(|group| group.target.pattern == target.pattern) {
            group.members.push(index);
            continue;
        }
        let greylisting = &target.domain.greylisting;
        let null_sender = facts.sender.is_none();
        groups.push(Group {
            target,
            identities: identities(facts.client, facts.helo, null_sender, facts.verified, greylisting),
            params: Params::new(greylisting, null_sender),
            members: vec![index],
        });
    }
    groups
}

// === impl Screened ===

impl Screened<'_> {
    fn refused(refusal: Refusal) -> Self {
        Self {
            target: None,
            deliver_to: None,
            finding: Finding::Final(refusal),
            score: 0.0,
            teaches: Teaches::Nothing,
            suspect: false,
            step: Step::Domain,
            range: None,
            listed: None,
        }
    }
}
