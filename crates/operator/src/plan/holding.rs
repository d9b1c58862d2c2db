//! Which policy is in force, since which sequence each form is in it, and which verdict pods run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use torwart_api::{Kind, MailDomain, MailGateway, Manifest, ObjectRef};
use torwart_core::Revision;
use torwart_policy::Snapshot;

use super::compiled::Judgement;
use super::publication::{Hold, present_index};
use super::reasons;
use super::status::Before;
use crate::values::{Form, Pods, Published, Seen};

/// How many pods are named.
const NAMED: usize = 3;

/// Since which sequence each object's form is published.
#[derive(Debug, Default)]
pub(super) struct Firsts {
    /// The index that the rest is about.
    at: Option<(u64, Revision)>,
    snapshot: Option<Arc<Snapshot>>,
    firsts: BTreeMap<ObjectRef, u64>,
}

/// What is published once the plan is carried out.
pub(super) struct Holding<'p> {
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) sequence: u64,
    /// Why it is not what was compiled.
    pub(super) hold: Option<Hold>,
    pub(super) firsts: &'p Firsts,
    pub(super) pods: &'p Pods,
}

// === impl Firsts ===

impl Firsts {
    /// `before` is what is there, `after` what will be.
    pub(super) fn follow(&mut self, before: &Published, after: &Published) {
        let of = |published: &Published| {
            present_index(published).map(|index| (index.sequence, index.revision.clone()))
        };
        if self.at != of(before) {
            // Somebody else wrote it, or we did in another life: all of it was there by then.
            *self = Self::default();
            self.advance(of(before), before.snapshot.clone());
        }
        self.advance(of(after), after.snapshot.clone());
    }

    fn advance(&mut self, at: Option<(u64, Revision)>, snapshot: Option<Arc<Snapshot>>) {
        if self.at == at {
            return;
        }
        let sequence = at.as_ref().map_or(0, |(sequence, _)| *sequence);
        let old = std::mem::take(&mut self.firsts);
        if let Some(new) = &snapshot {
            let first = |object: &ObjectRef, is_same: bool| {
                old.get(object).copied().filter(|_| is_same).unwrap_or(sequence)
            };
            for (object, domain) in &new.domains {
                let is_same = self.snapshot.as_ref().is_some_and(|old| {
                    old.domains.get(object).is_some_and(|old| Arc::ptr_eq(old, domain) || old == domain)
                });
                self.firsts.insert(object.clone(), first(object, is_same));
            }
            let is_same = self.snapshot.as_ref().is_some_and(|old| old.gateway == new.gateway);
            let gateway = new.gateway.object_ref();
            let sequence = first(&gateway, is_same);
            self.firsts.insert(gateway, sequence);
        }
        self.snapshot = snapshot;
        self.at = at;
    }
}

// === impl Holding ===

impl Holding<'_> {
    /// Whether an object's present form is the one that is published.
    pub(super) fn has(&self, seen: &Seen) -> bool {
        let Some(snapshot) = &self.snapshot else { return false };
        match &seen.form {
            Form::Read(Manifest::MailDomain(MailDomain { metadata, spec })) => {
                snapshot.domains.get(&seen.object).is_some_and(|published| {
                    published.metadata.generation == metadata.generation && published.spec == *spec
                })
            }
            Form::Read(Manifest::MailGateway(MailGateway { metadata, spec })) => {
                snapshot.gateway.metadata.generation == metadata.generation && snapshot.gateway.spec == *spec
            }
            Form::Malformed { .. } => false,
        }
    }

    fn first(&self, object: &ObjectRef) -> u64 {
        self.firsts.firsts.get(object).copied().unwrap_or(self.sequence)
    }

    /// The reports of pods that run the published form of an object; of all pods if its present form is not published.
    pub(super) fn reports(&self, seen: &Seen) -> impl Iterator<Item = &crate::values::PodReport> {
        let first = if self.has(seen) { self.first(&seen.object) } else { 0 };
        self.pods
            .ready
            .values()
            .filter_map(|report| report.as_deref().ok())
            .filter(move |report| sequence(report) >= first)
    }

    /// The condition Programmed.
    pub(super) fn programmed(
        &self,
        seen: &Seen,
        accepted: &Judgement,
        resolved: Option<&Judgement>,
        before: Option<&Before>,
    ) -> Judgement {
        let generation = seen.generation;
        if let Some(Hold { reason, message }) =
            self.hold.as_ref().filter(|_| seen.object.kind == Kind::MailGateway)
        {
            return Judgement::fails(reason, message.clone());
        }
        if self.has(seen) {
            return self.programmed_by_pods(seen, before);
        }
        let older =
            self.snapshot.as_ref().and_then(|snapshot| super::compiled::generation(snapshot, &seen.object));
        let older = match older {
            Some(older) if older != generation => format!("; generation {older} is in force"),
            _ => String::new(),
        };
        if accepted.status != torwart_api::ConditionStatus::True {
            return Judgement::fails(
                reasons::NOT_ACCEPTED,
                format!("generation {generation} is not accepted{older}"),
            );
        }
        if let Some(Hold { reason, .. }) = &self.hold {
            let message = format!("nothing is published at present, see the MailGateway{older}");
            return Judgement::fails(reason, message);
        }
        if resolved.is_some_and(|resolved| resolved.status != torwart_api::ConditionStatus::True) {
            let message = format!("its references lead nowhere, see ResolvedRefs{older}");
            return Judgement::fails(reasons::REFS_NOT_RESOLVED, message);
        }
        Judgement::fails(reasons::PENDING, format!("generation {generation} is not published yet{older}"))
    }

    fn programmed_by_pods(&self, seen: &Seen, before: Option<&Before>) -> Judgement {
        let generation = seen.generation;
        let first = self.first(&seen.object);
        let has_it = |report: &Result<Arc<crate::values::PodReport>, String>| {
            report.as_ref().is_ok_and(|report| sequence(report) >= first)
        };
        let ready = &self.pods.ready;
        let waiting: Vec<_> = ready.iter().filter(|(_, report)| !has_it(report)).collect();
        let was_programmed = before.is_some_and(|before| before.was_true("Programmed", generation));
        if was_programmed || (waiting.is_empty() && !ready.is_empty()) {
            let message = format!("every Ready verdict pod has had generation {generation} in force");
            return Judgement::holds(reasons::PROGRAMMED, message);
        }
        let reason = match before.and_then(|before| before.of("Programmed")) {
            Some(before)
                if before.status == torwart_api::ConditionStatus::True
                    || before.reason == reasons::UPDATING =>
            {
                reasons::UPDATING
            }
            _ => reasons::PENDING,
        };
        if self.pods.asked_at == 0 {
            return Judgement::fails(reason, "published; the verdict pods have not been asked yet");
        }
        if ready.is_empty() {
            let message =
                "published; there is no Ready verdict pod, so nobody can say whether it is in force";
            return Judgement::unknown(reasons::NO_VERDICT_PODS, message);
        }
        let named: Vec<String> = waiting
            .iter()
            .take(NAMED)
            .map(|(name, report)| match report {
                Ok(_) => (*name).clone(),
                Err(error) => format!("{name} (no answer: {})", super::compiled::clip(error.clone(), 200)),
            })
            .collect();
        let more = waiting.len().checked_sub(NAMED).filter(|more| *more > 0);
        let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
        let message = format!(
            "published; {} of {} Ready verdict pods have it; waits for {}{more}",
            ready.len() - waiting.len(),
            ready.len(),
            named.join(", ")
        );
        Judgement::fails(reason, message)
    }
}

/// The sequence of the policy that a pod runs.
fn sequence(report: &crate::values::PodReport) -> u64 {
    report.status.policy.as_ref().map_or(0, |policy| policy.sequence)
}
