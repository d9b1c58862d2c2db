//! From what is there to what is to be written. Pure: the rim watches, asks and writes.
//!
//! ```text
//!   Cluster --resolve, compile--> Compiled (kept until something of it changes) --+--> Pieces --> slots, index
//!   Published ---------------------------------------------------------------------+
//!   Pods ------------------------------------> Holding --judge, for each object----+--> statuses, Events
//! ```

mod compiled;
mod domain;
mod events;
mod gateway;
mod holding;
mod publication;
pub mod reasons;
mod resolve;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use torwart_api::{Condition, ConditionStatus, Kind, MailDomainStatus, MailGatewayStatus, ObjectRef, Time};

use crate::values::{Cluster, EventWrite, Pods, Published, Seen, StatusWrite, Write};
use compiled::{Compiled, Judgement, Standing};
use holding::{Firsts, Holding};
use publication::{Hold, Pieces};
use status::{Before, Refreshes};

pub use events::MORE_CHANGES;

/// What one plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub cluster: &'a Arc<Cluster>,
    /// Whether anything in `cluster` may differ from the plan before; what does is found out here.
    pub cluster_changed: bool,
    /// As the API server has it: what the last plan left, or what was read since.
    pub published: &'a Published,
    pub pods: &'a Pods,
    /// Why a slot or the index could not be written just now: then neither is tried, and the statuses say so.
    pub publish_failure: Option<&'a str>,
    pub operator_namespace: &'a str,
    /// The name of our MailGateway.
    pub gateway: &'a str,
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// In this order: slots, the index, statuses, Events. Once a slot or the index fails, nothing behind it may be
    /// written: [`Planner::forget`], read what is published, plan again.
    pub writes: Vec<Write>,
    /// What is published once slots and index are written. Of those that are written the resource versions are still
    /// the old ones (empty if there was none): whoever writes knows the new ones.
    pub published: Published,
    /// Something waits for verdict pods: ask them soon.
    pub wait_for_pods: bool,
    /// What is wrong with the whole rather than with one object, for the log.
    pub problems: Vec<String>,
}

/// Remembers between plans what need not be found out again. A new one, given the same, writes the same.
#[derive(Debug, Default)]
pub struct Planner {
    compiled: Option<Compiled>,
    /// Why the pieces of the compiled snapshot can't be published, whatever the pods say.
    too_large: Option<Hold>,
    firsts: Firsts,
    /// The conditions that were wanted last.
    wanted: BTreeMap<ObjectRef, Before>,
    refreshes: Refreshes,
    compilations: u64,
}

// === impl Planner ===

impl Planner {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many times anything was compiled.
    pub fn compilations(&self) -> u64 {
        self.compilations
    }

    /// The last plan was not carried out to its end: what it told must be told again.
    pub fn forget(&mut self) {
        self.wanted.clear();
    }

    /// What is to be written at `now_ms` (Unix, in milliseconds), so that what is published, the statuses and the
    /// Events are as `inputs` want them.
    pub fn plan(&mut self, inputs: Inputs<'_>, now_ms: i64) -> Plan {
        let now = now_ms.div_euclid(1000);
        if publication::is_newer(inputs.published) {
            return self.stand_aside(inputs, now);
        }
        let known = self.compiled.take().and_then(|compiled| compiled.still_holding(&inputs, now));
        let mut compiled = known.unwrap_or_else(|| {
            self.compilations += 1;
            self.too_large = None;
            Compiled::new(&inputs, now)
        });
        let (mut writes, published, hold) = self.publication(&mut compiled, &inputs, now_ms);
        let publishes = !writes.is_empty();
        self.firsts.follow(inputs.published, &published);
        let firsts = std::mem::take(&mut self.firsts);
        let holding = Holding {
            snapshot: published.snapshot.clone(),
            sequence: publication::present_index(&published).map_or(0, |index| index.sequence),
            hold,
            firsts: &firsts,
            pods: inputs.pods,
        };
        let mut statuses = Statuses {
            planner: self,
            holding: &holding,
            now,
            writes: Vec::new(),
            events: Vec::new(),
            waits: false,
        };
        for (object, seen) in &inputs.cluster.objects {
            if let Some(standing) = compiled.standings.get(object) {
                statuses.add(seen, standing);
            }
        }
        let Statuses { writes: statuses, events, waits, .. } = statuses;
        let mut problems = compiled.problems.clone();
        problems.extend(holding.hold.iter().map(|hold| format!("{}: {}", hold.reason, hold.message)));
        let waits_for_formats = holding
            .hold
            .as_ref()
            .is_some_and(|hold| [reasons::PENDING, reasons::FORMAT_NOT_READABLE].contains(&hold.reason));
        let wait_for_pods = waits || publishes || waits_for_formats;
        self.firsts = firsts;
        self.compiled = Some(compiled);
        self.tidy(&inputs);
        let gateway = inputs.cluster.objects.get(&ObjectRef::gateway(inputs.gateway));
        let events = events::bounded(events, gateway.map(|seen| &**seen));
        writes.extend(statuses.into_iter().map(Write::Status));
        writes.extend(events.into_iter().map(Write::Event));
        Plan { writes, published, wait_for_pods, problems }
    }

    /// What must be written so that the compiled policy is in force, what is published then, and why it may not be.
    fn publication(
        &mut self,
        compiled: &mut Compiled,
        inputs: &Inputs<'_>,
        now_ms: i64,
    ) -> (Vec<Write>, Published, Option<Hold>) {
        let mass_removal = compiled
            .mass_removal
            .as_ref()
            .map(|removal| Hold { reason: reasons::MASS_REMOVAL, message: removal.to_string() });
        let nothing = || (Vec::new(), inputs.published.clone());
        let Some(snapshot) = compiled.snapshot.clone() else {
            let (writes, published) = nothing();
            return (writes, published, mass_removal);
        };
        if publication::is_published(inputs.published, &snapshot) {
            let (writes, published) = nothing();
            return (writes, published, mass_removal);
        }
        let failed = || {
            inputs.publish_failure.map(|error| Hold {
                reason: reasons::PUBLISH_FAILED,
                message: format!(
                    "the policy could not be published: {error}; it is tried again, and what was published last holds"
                ),
            })
        };
        let skew = publication::format_skew(inputs.published, inputs.pods);
        let pieces = match skew.or_else(|| self.too_large.clone()).or_else(failed) {
            Some(hold) => Err(hold),
            None => Pieces::new(&snapshot, compiled.take_chunks(&snapshot), inputs.published)
                .inspect_err(|hold| self.too_large = Some(hold.clone())),
        };
        match pieces {
            Ok(pieces) => {
                let (writes, published) = pieces.publish(&snapshot, inputs.published, now_ms);
                (writes, published, mass_removal)
            }
            Err(hold) => {
                let (writes, published) = nothing();
                (writes, published, Some(hold))
            }
        }
    }

    /// A newer release is at work or was: all that may be said is that.
    fn stand_aside(&mut self, inputs: Inputs<'_>, now: i64) -> Plan {
        let message = "a newer operator published the policy in a format that this one does not know, so this one \
                       publishes nothing; what is published holds; run the newer release, or delete the index to go back";
        let mut writes = Vec::new();
        if let Some(seen) = inputs.cluster.objects.get(&ObjectRef::gateway(inputs.gateway)) {
            let there: Option<MailGatewayStatus> = status::read(&seen.status);
            let before = self.before(seen, there.as_ref());
            let judged = vec![("Programmed", Judgement::fails(reasons::NEWER_FORMAT, message))];
            let mut new = there.clone().unwrap_or_default();
            new.observed_generation = Some(seen.generation);
            let conditions = status::conditions(judged, seen, before.as_ref(), time(now));
            let mut events = Vec::new();
            events::add(&mut events, seen, before.as_ref(), &conditions);
            new.conditions.retain(|condition| condition.kind != "Programmed");
            let place = new.conditions.iter().position(|condition| condition.kind != "Accepted");
            let place = place.unwrap_or(new.conditions.len());
            new.conditions.splice(place..place, conditions);
            self.remember::<MailGatewayStatus>(seen, &new.conditions);
            let write = status::to_write(new, there, &seen.object, &mut self.refreshes, now);
            let status = write.map(|status| StatusWrite {
                object: seen.object.clone(),
                uid: seen.uid.clone(),
                status,
            });
            writes.extend(status.map(Write::Status));
            writes.extend(events.into_iter().map(Write::Event));
        }
        let problems = vec![format!("{}: {message}", reasons::NEWER_FORMAT)];
        Plan { writes, published: inputs.published.clone(), wait_for_pods: false, problems }
    }

    /// What was wanted last for this very object, or what it has.
    fn before<S: status::Status>(&self, seen: &Seen, there: Option<&S>) -> Option<Before> {
        let wanted = self.wanted.get(&seen.object).filter(|before| before.uid == seen.uid);
        wanted.cloned().or_else(|| Before::there(seen, there))
    }

    fn remember<S: status::Status>(&mut self, seen: &Seen, conditions: &[Condition]) {
        self.wanted.insert(seen.object.clone(), Before::new::<S>(&seen.uid, conditions));
    }

    /// Forgets objects that are gone.
    fn tidy(&mut self, inputs: &Inputs<'_>) {
        if inputs.cluster_changed {
            let objects = &inputs.cluster.objects;
            self.wanted.retain(|object, _| objects.contains_key(object));
            self.refreshes.keep(|object| objects.contains_key(object));
        }
    }
}

/// Collects what is said of the objects.
struct Statuses<'p> {
    planner: &'p mut Planner,
    holding: &'p Holding<'p>,
    now: i64,
    writes: Vec<StatusWrite>,
    events: Vec<EventWrite>,
    /// Something waits for verdict pods.
    waits: bool,
}

// === impl Statuses ===

impl Statuses<'_> {
    fn add(&mut self, seen: &Seen, standing: &Standing) {
        let snapshot = self.holding.snapshot.as_ref();
        match seen.object.kind {
            Kind::MailDomain => {
                let there: Option<MailDomainStatus> = status::read(&seen.status);
                let before = self.planner.before(seen, there.as_ref());
                let judged = domain::judge(seen, standing, self.holding, there.as_ref(), before.as_ref());
                let in_force = snapshot.and_then(|snapshot| compiled::generation(snapshot, &seen.object));
                let new = MailDomainStatus {
                    observed_generation: Some(seen.generation),
                    generation_in_force: in_force,
                    greylisting: standing.greylisting.filter(|_| in_force.is_some()).map(str::to_owned),
                    conditions: status::conditions(judged, seen, before.as_ref(), time(self.now)),
                };
                self.finish(seen, before.as_ref(), new, there);
            }
            Kind::MailGateway => {
                let there: Option<MailGatewayStatus> = status::read(&seen.status);
                let before = self.planner.before(seen, there.as_ref());
                let judged = gateway::judge(seen, standing, self.holding, before.as_ref(), self.now);
                let new = MailGatewayStatus {
                    observed_generation: Some(seen.generation),
                    sequence: snapshot.map(|_| self.holding.sequence),
                    revision: snapshot.map(|snapshot| snapshot.revision.0.to_string()),
                    mail_domains: snapshot.and_then(|snapshot| u32::try_from(snapshot.domains.len()).ok()),
                    conditions: status::conditions(judged, seen, before.as_ref(), time(self.now)),
                };
                self.finish(seen, before.as_ref(), new, there);
            }
        }
    }

    fn finish<S: status::Status>(
        &mut self,
        seen: &Seen,
        before: Option<&Before>,
        mut new: S,
        there: Option<S>,
    ) {
        let conditions = new.conditions();
        self.waits |= conditions.iter().any(|condition| {
            condition.kind == "Programmed"
                && condition.status != ConditionStatus::True
                && [reasons::PENDING, reasons::UPDATING, reasons::NO_VERDICT_PODS]
                    .contains(&condition.reason.as_str())
        });
        events::add(&mut self.events, seen, before, conditions);
        self.planner.remember::<S>(seen, conditions);
        let status = status::to_write(new, there, &seen.object, &mut self.planner.refreshes, self.now);
        self.writes.extend(status.map(|status| StatusWrite {
            object: seen.object.clone(),
            uid: seen.uid.clone(),
            status,
        }));
    }
}

/// A moment as an object's status has it.
fn time(seconds: i64) -> Time {
    Time::from_unix_seconds(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests;
