//! What a compilation says of each object, kept until the inputs change.

use std::collections::BTreeMap;
use std::sync::Arc;

use torwart_api::{Condition, ConditionStatus, Kind, Metadata, ObjectRef};
use torwart_core::Revision;
use torwart_policy::Snapshot;
use torwart_policy::compile::{Cause, Compilation, FieldError, MassRemoval, Outcome, compile};
use torwart_policy::inputs::{self, Object, Tenancy};
use torwart_policy::model::GreylistMode;
use torwart_policy::publish::{self, Chunk, Slot};

use super::{Inputs, publication, reasons, resolve};
use crate::values::{Cluster, Form, Seen};

/// A policy that settles only once it is published would be one that is compiled for ever.
const MOST_ROUNDS: usize = 3;

/// The most bytes of a condition's message.
const LONGEST_MESSAGE: usize = 1500;

pub(super) type Chunks = BTreeMap<Slot, Chunk>;

/// The last compilation.
#[derive(Debug)]
pub(super) struct Compiled {
    cluster: Arc<Cluster>,
    /// What was published when it was made.
    last: Option<Revision>,
    /// Until when it holds, in Unix seconds.
    until: i64,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) mass_removal: Option<MassRemoval>,
    pub(super) standings: BTreeMap<ObjectRef, Standing>,
    pub(super) problems: Vec<String>,
    /// Of `snapshot`, until they are published.
    chunks: Option<Chunks>,
}

/// What one object comes to, whatever the verdict pods say.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) accepted: Judgement,
    pub(super) resolved: Judgement,
    /// Of the form in force in `snapshot`.
    pub(super) greylisting: Option<&'static str>,
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

// === impl Compiled ===

impl Compiled {
    /// What makes a slot too large for its ConfigMap is left in the form that is published, so that nobody's objects hold
    /// up those of others.
    pub(super) fn new(inputs: &Inputs<'_>, now: i64) -> Self {
        let mut compiled = Self::of(inputs, now);
        let mut cluster = Arc::clone(inputs.cluster);
        for _ in 0..MOST_ROUNDS {
            let Some(snapshot) = &compiled.snapshot else { break };
            let chunks = publish::chunks(snapshot);
            let too_large = publication::too_large(snapshot, &chunks, inputs.published);
            if too_large.is_empty() {
                compiled.chunks = Some(chunks);
                break;
            }
            let fitting = Arc::make_mut(&mut cluster);
            for (object, message) in too_large {
                if let Some(seen) = fitting.objects.get_mut(&object) {
                    *seen = Arc::new(set_aside(seen, message));
                }
            }
            compiled = Self::of(&Inputs { cluster: &cluster, ..*inputs }, now);
        }
        Self { cluster: inputs.cluster.clone(), ..compiled }
    }

    /// The chunks of `snapshot`, which are made when it is compiled and can be had once.
    pub(super) fn take_chunks(&mut self, snapshot: &Snapshot) -> Chunks {
        self.chunks.take().unwrap_or_else(|| publish::chunks(snapshot))
    }

    fn of(inputs: &Inputs<'_>, now: i64) -> Self {
        let last = inputs.published.snapshot.clone();
        let mut given = to_compile(inputs, last.clone(), now);
        let mut compilation = compile(&given);
        // What it comes to once it is published: who waited for others to go gets its turn, and what confirms a mass
        // removal names the policy that will be there.
        for _ in 1..MOST_ROUNDS {
            if compilation.is_settled(&given) {
                break;
            }
            given.last.clone_from(&compilation.snapshot);
            compilation = compile(&given);
        }
        Self::judged(inputs, last.map(|last| last.revision.clone()), compilation)
    }

    fn judged(inputs: &Inputs<'_>, last: Option<Revision>, compilation: Compilation) -> Self {
        let Compilation { policy, snapshot, outcomes, mass_removal, problems } = compilation;
        let modes: BTreeMap<&str, &'static str> = policy
            .iter()
            .flat_map(|policy| policy.domains.iter())
            .map(|(_, domain)| (&*domain.object, mode(domain.greylisting.mode)))
            .collect();
        let gateway = ObjectRef::gateway(inputs.gateway);
        let no_gateway = (snapshot.is_none()).then(|| {
            if inputs.cluster.objects.contains_key(&gateway) {
                let message = format!("{gateway} is not accepted; see its own conditions");
                Judgement::fails(reasons::GATEWAY_NOT_ACCEPTED, message)
            } else {
                Judgement::fails(reasons::GATEWAY_NOT_FOUND, format!("there is no {gateway}"))
            }
        });
        let mut standings = BTreeMap::new();
        for (object, seen) in &inputs.cluster.objects {
            let Some(outcome) = outcomes.get(object) else { continue };
            let no_gateway = no_gateway.as_ref().filter(|_| object.kind == Kind::MailDomain);
            let kept = snapshot.as_ref().and_then(|snapshot| generation(snapshot, object));
            let greylisting = modes.get(&*format!("{}/{}", object.namespace, object.name)).copied();
            standings.insert(
                object.clone(),
                Standing {
                    accepted: accepted(seen, outcome, no_gateway, kept),
                    resolved: resolved(inputs.cluster, seen, outcome),
                    greylisting,
                },
            );
        }
        let until = snapshot.iter().flat_map(|snapshot| snapshot.removed.values()).min();
        Self {
            cluster: inputs.cluster.clone(),
            last,
            until: until.copied().unwrap_or(i64::MAX),
            snapshot,
            mass_removal,
            standings,
            problems,
            chunks: None,
        }
    }

    /// Itself, if a compilation of these inputs would come to the same.
    pub(super) fn still_holding(mut self, inputs: &Inputs<'_>, now: i64) -> Option<Self> {
        let published = inputs.published.snapshot.as_ref().map(|snapshot| &snapshot.revision);
        let settled = self.snapshot.as_ref().map(|snapshot| &snapshot.revision);
        if now >= self.until || (published != self.last.as_ref() && published != settled) {
            return None;
        }
        if inputs.cluster_changed {
            if !same(&self.cluster, inputs.cluster) {
                return None;
            }
            self.cluster = inputs.cluster.clone();
        }
        Some(self)
    }
}

/// The generation of an object's form in a snapshot.
pub(super) fn generation(snapshot: &Snapshot, object: &ObjectRef) -> Option<i64> {
    match object.kind {
        Kind::MailDomain => snapshot.domains.get(object)?.metadata.generation,
        Kind::MailGateway => {
            Some(&snapshot.gateway).filter(|ours| ours.metadata.name == object.name)?.metadata.generation
        }
    }
}

fn to_compile(inputs: &Inputs<'_>, last: Option<Arc<Snapshot>>, now: i64) -> inputs::Inputs {
    let objects = inputs.cluster.objects.values().map(|seen| match &seen.form {
        Form::Read(manifest) => {
            Object { object: seen.object.clone(), manifest: Some(manifest.clone()), draft: None }
        }
        Form::Malformed { draft, .. } => {
            Object { object: seen.object.clone(), manifest: None, draft: draft.clone() }
        }
    });
    let kept = last.iter().flat_map(|last| last.domains.values()).map(|domain| &**domain);
    inputs::Inputs {
        objects: objects.collect(),
        tenancy: Tenancy::Cluster {
            operator_namespace: inputs.operator_namespace.to_owned(),
            namespaces: inputs.cluster.namespaces.clone(),
        },
        gateway: Some(inputs.gateway.to_owned()),
        resolutions: resolve::resolve(inputs.cluster, kept),
        listeners: Vec::new(),
        last: last.clone(),
        now,
        incomplete: false,
    }
}

/// As if it could not be read: its last form stays, or its mail domains are deferred.
fn set_aside(seen: &Seen, message: String) -> Seen {
    let draft = match &seen.form {
        Form::Read(manifest) => Some(manifest.clone()),
        Form::Malformed { draft, .. } => draft.clone(),
    };
    let error = FieldError { cause: Cause::TooLarge, ..FieldError::new("spec", message) };
    Seen { form: Form::Malformed { errors: vec![error], draft }, ..seen.clone() }
}

/// Whether two states of the cluster differ in nothing that a policy is made of.
fn same(a: &Cluster, b: &Cluster) -> bool {
    // One generation of one object has one spec.
    let same_object = |a: &Arc<Seen>, b: &Arc<Seen>| {
        Arc::ptr_eq(a, b) || (a.uid == b.uid && a.generation == b.generation && metadata(a) == metadata(b))
    };
    a.objects.len() == b.objects.len()
        && a.objects
            .iter()
            .zip(&b.objects)
            .all(|((a_name, a), (b_name, b))| a_name == b_name && same_object(a, b))
        && a.namespaces == b.namespaces
        && a.services == b.services
        && a.authorities == b.authorities
}

fn metadata(seen: &Seen) -> Option<&Metadata> {
    match &seen.form {
        Form::Read(manifest) => Some(manifest.metadata()),
        Form::Malformed { .. } => None,
    }
}

// === what is said of an object ===

fn accepted(seen: &Seen, outcome: &Outcome, no_gateway: Option<&Judgement>, kept: Option<i64>) -> Judgement {
    let malformed: &[FieldError] = match &seen.form {
        Form::Malformed { errors, .. } => errors,
        Form::Read(_) => &[],
    };
    let errors: Vec<&FieldError> = malformed.iter().chain(&outcome.errors).collect();
    let Some(first) = errors.first() else {
        if let Some(no_gateway) = no_gateway {
            return no_gateway.clone();
        }
        if matches!(seen.form, Form::Malformed { .. }) {
            return Judgement::fails(reasons::INVALID, "it can't be read".to_owned());
        }
        let mut message = "accepted".to_owned();
        if !outcome.warnings.is_empty() {
            message = format!("accepted, but note: {}", listed(outcome.warnings.iter()));
        }
        return Judgement::holds(reasons::ACCEPTED, message);
    };
    let reason = match first.cause {
        Cause::Invalid => reasons::INVALID,
        Cause::NamespaceNotPermitted => reasons::NAMESPACE_NOT_PERMITTED,
        Cause::DomainNotPermitted => reasons::DOMAIN_NOT_PERMITTED,
        Cause::UpstreamNotPermitted => reasons::UPSTREAM_NOT_PERMITTED,
        Cause::DomainConflict => reasons::DOMAIN_CONFLICT,
        Cause::TooLarge => reasons::SNAPSHOT_TOO_LARGE,
        Cause::ServiceNotFound => reasons::SERVICE_NOT_FOUND,
        Cause::AuthorityNotFound => reasons::AUTHORITY_NOT_FOUND,
    };
    let kept = match kept {
        Some(generation) => format!("; generation {generation} stays in force"),
        None => String::new(),
    };
    Judgement::fails(reason, format!("{}{kept}", listed(errors.into_iter())))
}

fn resolved(cluster: &Cluster, seen: &Seen, outcome: &Outcome) -> Judgement {
    let Some(first) = outcome.unresolved.first() else {
        return if outcome.errors.is_empty() && matches!(seen.form, Form::Read(_)) {
            Judgement::holds(reasons::RESOLVED, "every reference leads somewhere".to_owned())
        } else {
            let message = "the newest form is not accepted, so its references are not followed".to_owned();
            Judgement { status: ConditionStatus::Unknown, reason: reasons::NOT_ACCEPTED, message }
        };
    };
    let reason = match first.cause {
        Cause::AuthorityNotFound => reasons::AUTHORITY_NOT_FOUND,
        _ => reasons::SERVICE_NOT_FOUND,
    };
    let known = resolve::explain(cluster, seen);
    let explained = outcome.unresolved.iter().map(|error| match known.get(&error.path) {
        Some(message) => FieldError { message: message.clone(), ..error.clone() },
        None => error.clone(),
    });
    let explained: Vec<FieldError> = explained.collect();
    Judgement::fails(reason, listed(explained.iter()))
}

/// Field errors as one text.
fn listed<'e>(errors: impl Iterator<Item = &'e FieldError>) -> String {
    let texts: Vec<String> =
        errors.map(|FieldError { path, message, .. }| format!("{path}: {message}")).collect();
    clip(texts.join("; "), LONGEST_MESSAGE)
}

/// The text, or as much of it as fits into so many bytes.
pub(super) fn clip(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let mut end = longest.saturating_sub(4);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

fn mode(mode: GreylistMode) -> &'static str {
    match mode {
        GreylistMode::Suspicious => "Suspicious",
        GreylistMode::Always => "Always",
        GreylistMode::Off => "Off",
    }
}

// === impl Judgement ===

impl Judgement {
    pub(super) fn holds(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::True, reason, message: message.into() }
    }

    pub(super) fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::False, reason, message: message.into() }
    }

    pub(super) fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::Unknown, reason, message: message.into() }
    }

    /// The same as a condition that was there.
    pub(super) fn again(condition: &Condition) -> Option<Self> {
        let reason = reasons::ALL.iter().find(|reason| **reason == condition.reason)?;
        Some(Self { status: condition.status, reason, message: condition.message.clone() })
    }
}
