//! Manifests to a policy.
//!
//! ```text
//!   Inputs -> pick the MailGateway -> read each MailDomain -> tenancy -> claims -> removal -> Snapshot -> Policy
//!                 |                       |                     |          |
//!                 +-----------------------+---------------------+----------+--> one Outcome per object
//! ```
//!
//! Nothing here depends on the order of the inputs. An object whose present form is not accepted keeps its last
//! accepted one; only deletion, or the loss of a permission, removes it.

mod advice;
mod claims;
pub(crate) mod defaults;
mod domain;
mod gateway;
mod lists;
mod merge;
mod not_yet;
mod published;
mod removal;
mod route;
mod scores;
mod tenancy;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use torwart_api::{Kind, MailDomain, MailGateway, Manifest, ObjectRef};
use torwart_core::{Route, RouteDigest};

use crate::domains::{DomainPattern, DomainTable};
use crate::inputs::{Inputs, Object, Tenancy};
use crate::model::{Domain, Policy, RangeAction};
use crate::snapshot::{Parts, Snapshot, essential};
use claims::{Candidate, Claims, Settled};
use domain::{CompiledDomain, DomainContext};
use gateway::CompiledGateway;

pub(crate) use domain::patterns;
pub(crate) use published::compile_published;
pub use removal::{CONFIRM_REMOVAL, MassRemoval};

/// What became of the inputs.
#[derive(Debug, Default)]
pub struct Compilation {
    /// `None` if there is no usable MailGateway and never was: every recipient must be deferred.
    pub policy: Option<Policy>,
    /// What the policy was made of; the next compilation's `last`.
    pub snapshot: Option<Arc<Snapshot>>,
    /// One for each object in the inputs that concerns this gateway.
    pub outcomes: BTreeMap<ObjectRef, Outcome>,
    /// The inputs would remove most mail domains; until that is confirmed, the last policy stays as it was.
    pub mass_removal: Option<MassRemoval>,
    /// What is wrong with the whole rather than with one object, such as a missing MailGateway.
    pub problems: Vec<String>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub state: State,
    /// Why its present form is not accepted; empty if it is.
    pub errors: Vec<FieldError>,
    /// What is accepted, but not as its author may think.
    pub warnings: Vec<FieldError>,
    /// References that lead nowhere. What they led to before holds on; without that, the object is not in force,
    /// though nothing is wrong with what is written.
    pub unresolved: Vec<FieldError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The present form holds.
    Accepted,
    /// The present form is not accepted; the last accepted one holds.
    Kept,
    /// Nothing of it holds.
    Rejected,
}

/// A mistake or a warning at a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// As in `spec.route.upstreams[0].port`.
    pub path: String,
    /// With the path in front of it, a sentence.
    pub message: String,
    /// Whose fault it is.
    pub cause: Cause,
}

/// Why something is not accepted or not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// What is written is wrong.
    #[default]
    Invalid,
    /// `tenants` has no entry for the namespace.
    NamespaceNotPermitted,
    /// The namespace may not claim this mail domain.
    DomainNotPermitted,
    /// The namespace may not send mail there.
    UpstreamNotPermitted,
    /// Another object has the mail domain.
    DomainConflict,
    /// There is no such Service, or none that a route can use.
    ServiceNotFound,
    /// There is no such ConfigMap, or no certificate in it.
    AuthorityNotFound,
    /// There is no room for it in what is published.
    TooLarge,
}

/// Collects the mistakes of one object.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

/// Compiles a policy. It never fails as a whole: what can't be used is in the outcomes and problems.
pub fn compile(inputs: &Inputs) -> Compilation {
    let mut compilation = Compilation::default();
    let mut objects = Objects::sort(inputs, &mut compilation);
    let gateway = match choose_gateway(inputs, &mut objects, &mut compilation) {
        Ok(gateway) => gateway,
        Err(unusable) => {
            let context = DomainContext { inputs, gateway: &unusable };
            read_domains(&context, objects, &mut compilation);
            compilation.outcomes.values_mut().for_each(|outcome| outcome.state = State::Rejected);
            return compilation;
        }
    };
    let context = DomainContext { inputs, gateway: &gateway };
    let read = read_domains(&context, objects, &mut compilation);
    if let Some(held) = removal::hold(inputs, &gateway.manifest, &read.accepted) {
        hold_last(inputs, held, read, compilation)
    } else {
        build(inputs, gateway, read, compilation)
    }
}

/// What is deferred since the policy is not as its authors meant it.
#[derive(Debug, Default)]
struct Deferred {
    /// Domains of objects that are not in force.
    held: BTreeSet<DomainPattern>,
    /// Whatever is not known.
    incomplete: bool,
}

/// What the MailDomains of a policy come to.
#[derive(Default)]
struct Table {
    known: BTreeMap<DomainPattern, Arc<Domain>>,
    routes: HashMap<RouteDigest, Arc<Route>>,
}

/// An accepted MailDomain in the form that holds.
struct Accepted {
    manifest: Arc<MailDomain>,
    compiled: CompiledDomain,
}

/// The objects of the inputs, each once.
struct Objects<'i> {
    gateways: BTreeMap<&'i ObjectRef, Option<&'i MailGateway>>,
    domains: BTreeMap<&'i ObjectRef, Forms<'i>>,
}

/// What there is of a MailDomain.
#[derive(Default)]
struct Forms<'i> {
    /// What may be put in force.
    manifest: Option<&'i MailDomain>,
    /// All that was written under its name, however badly.
    written: Vec<&'i MailDomain>,
}

/// What the MailDomains come to.
struct Read {
    accepted: BTreeMap<ObjectRef, Accepted>,
    deferred: Deferred,
}

// === impl Objects ===

impl<'i> Objects<'i> {
    /// Of two objects with one name neither is taken: which one is meant, nobody can say.
    fn sort(inputs: &'i Inputs, compilation: &mut Compilation) -> Self {
        let mut objects = Self { gateways: BTreeMap::new(), domains: BTreeMap::new() };
        for object in &inputs.objects {
            let name = &object.object;
            let twice = match (&object.manifest, name.kind) {
                (Some(Manifest::MailGateway(gateway)), _) => {
                    objects.gateways.insert(name, Some(gateway)).is_some()
                }
                (None, Kind::MailGateway) => objects.gateways.insert(name, None).is_some(),
                (Some(Manifest::MailDomain(_)) | None, _) => objects.add_domain(object),
            };
            let outcome = compilation.outcomes.entry(name.clone()).or_insert_with(Outcome::accepted);
            if twice && outcome.errors.is_empty() {
                outcome.errors.push(FieldError::new(
                    "metadata.name",
                    format!("there are two objects called {name}; rename or remove one"),
                ));
            }
        }
        for (name, _) in compilation.outcomes.iter().filter(|(_, outcome)| !outcome.errors.is_empty()) {
            if let Some(gateway) = objects.gateways.get_mut(name) {
                *gateway = None;
            }
            if let Some(forms) = objects.domains.get_mut(name) {
                forms.manifest = None;
            }
        }
        objects
    }

    /// Says whether there was one with this name already.
    fn add_domain(&mut self, Object { object, manifest, draft }: &'i Object) -> bool {
        let read = |form: &'i Option<Manifest>| match form {
            Some(Manifest::MailDomain(domain)) => Some(domain),
            Some(Manifest::MailGateway(_)) | None => None,
        };
        let twice = self.domains.contains_key(object);
        let forms = self.domains.entry(object).or_default();
        forms.manifest = read(manifest);
        forms.written.extend(read(manifest).or_else(|| read(draft)));
        twice
    }
}

// === the MailGateway ===

/// The gateway in the form that holds; or, if none does, what the MailDomains can still be checked against.
fn choose_gateway(
    inputs: &Inputs,
    objects: &mut Objects<'_>,
    compilation: &mut Compilation,
) -> Result<CompiledGateway, Box<CompiledGateway>> {
    let last = inputs.last.as_ref().map(|last| &last.gateway);
    let wanted = |name: &str| inputs.gateway.as_deref().is_none_or(|ours| ours == name);
    if inputs.gateway.is_some() {
        objects.gateways.retain(|name, _| wanted(&name.name));
        compilation.outcomes.retain(|name, _| name.kind != Kind::MailGateway || wanted(&name.name));
    }
    // The present holder, else the first by name.
    let chosen = objects
        .gateways
        .keys()
        .copied()
        .min_by_key(|name| (last.is_none_or(|last| last.metadata.name != name.name), *name));
    for other in objects.gateways.keys().copied().filter(|name| Some(*name) != chosen) {
        let message = match chosen {
            Some(chosen) => format!("there can be only one MailGateway, and {chosen} is there already"),
            None => continue,
        };
        compilation.reject(other, vec![FieldError::new("metadata.name", message)]);
    }
    let last = last.filter(|last| wanted(&last.metadata.name));
    let Some(name) = chosen else {
        let Some(last) = last else {
            compilation.problems.push(no_gateway(inputs));
            return Err(Box::new(gateway::stand_in()));
        };
        compilation.problems.push(format!(
            "{}; the last one, {}, stays",
            no_gateway(inputs),
            last.object_ref()
        ));
        return gateway::compile(last.clone()).ok_or_else(|| Box::new(gateway::stand_in()));
    };
    let mut errors = Vec::new();
    let mut unusable = None;
    if let Some(present) = objects.gateways.get(name).copied().flatten() {
        let manifest = present.clone();
        let (compiled, found) = gateway::read(Arc::new(manifest));
        if found.is_empty() {
            let mut warnings = not_yet::gateway(&present.spec);
            warnings.extend(advice::gateway(&present.spec, inputs.now));
            compilation.accept(name, warnings);
            return Ok(compiled);
        }
        errors = found;
        unusable = Some(compiled);
    }
    let kept =
        last.filter(|last| last.metadata.name == name.name).and_then(|last| gateway::compile(last.clone()));
    compilation.keep_or_reject(name, errors, kept.is_some());
    kept.ok_or_else(|| Box::new(unusable.unwrap_or_else(gateway::stand_in)))
}

fn no_gateway(inputs: &Inputs) -> String {
    match &inputs.gateway {
        Some(name) => format!("there is no MailGateway called {name}"),
        None => format!(
            "there is no MailGateway; add one: {{apiVersion: {}, kind: MailGateway, metadata: {{name: default}}, \
             spec: {{hostname: mx.example.net}}}}",
            torwart_api::API_VERSION
        ),
    }
}

// === the MailDomains ===

fn read_domains(context: &DomainContext<'_>, objects: Objects<'_>, compilation: &mut Compilation) -> Read {
    let DomainContext { inputs, .. } = context;
    let mut deferred = Deferred { incomplete: inputs.incomplete, ..Deferred::default() };
    let last = inputs.last.as_deref();
    let mut claims = Claims::new(matches!(inputs.tenancy, Tenancy::Administrator));
    for (name, Forms { manifest, written }) in objects.domains {
        let held = last.and_then(|last| last.domains.get(name));
        let mut candidate = Candidate {
            object: name.clone(),
            created: manifest.and_then(|manifest| manifest.metadata.creation_timestamp),
            held: held.map(|held| patterns(&held.spec.domains)).unwrap_or_default(),
            wished: Vec::new(),
            present: None,
            may_fall_back: true,
        };
        match manifest.map(|manifest| (manifest, context.compile(name, manifest))) {
            Some((manifest, Ok(compiled))) => {
                let mut warnings = not_yet::domain(&manifest.spec);
                warnings.extend(advice::domain(&manifest.spec, inputs.now));
                compilation.accept(name, warnings);
                compilation.note_unresolved(name, &compiled.unresolved);
                let manifest = match held.filter(|held| held.spec == manifest.spec) {
                    Some(held) if held.metadata.generation == manifest.metadata.generation => held.clone(),
                    _ => Arc::new(MailDomain {
                        metadata: essential(&manifest.metadata),
                        spec: manifest.spec.clone(),
                    }),
                };
                candidate.present = Some(Accepted { manifest, compiled });
            }
            Some((_, Err(refused))) => {
                candidate.may_fall_back = refused.permitted;
                compilation.keep_or_reject(name, refused.errors, false);
                compilation.note_unresolved(name, &refused.unresolved);
            }
            None => {
                compilation.keep_or_reject(name, Vec::new(), false);
                // Nobody knows which domains it is about.
                deferred.incomplete |= matches!(inputs.tenancy, Tenancy::Administrator)
                    && held.is_none()
                    && written.iter().all(|form| form.spec.domains.is_empty());
            }
        }
        if candidate.present.is_none() {
            candidate.wished = written.iter().flat_map(|form| context.wished(name, form)).collect();
        }
        claims.add(candidate);
    }
    let settled = claims.settle(
        |form: &Accepted| &form.compiled.patterns,
        |name| {
            let manifest = last?.domains.get(name)?.clone();
            let compiled = context.compile(name, &manifest).ok()?;
            Some(Accepted { manifest, compiled })
        },
    );
    let mut accepted = BTreeMap::new();
    for Settled { object, form, conflicts, open } in settled {
        deferred.held.extend(open);
        let state = compilation.outcomes.get(&object).map(|outcome| outcome.state);
        if !conflicts.is_empty() || state != Some(State::Accepted) {
            compilation.keep_or_reject(&object, conflicts, form.is_some());
        }
        if let Some(form) = form {
            // Those of a form that is kept concern its author as well.
            compilation.note_unresolved(&object, &form.compiled.unresolved);
            accepted.insert(object, form);
        }
    }
    Read { accepted, deferred }
}

// === the whole ===

/// The last policy once more, as it was accepted, with the outcomes of the present inputs. Nothing of it is judged again:
/// what is no longer permitted would go, too, and that may be most of it.
fn hold_last(inputs: &Inputs, held: MassRemoval, read: Read, mut compilation: Compilation) -> Compilation {
    let Some(last) = &inputs.last else {
        return compilation;
    };
    let known: BTreeSet<DomainPattern> =
        last.domains.values().flat_map(|domain| patterns(&domain.spec.domains)).collect();
    // What is new is in force no more than what is gone, and waits like it.
    let new =
        read.accepted.values().flat_map(|form| form.compiled.patterns.iter().map(|(pattern, _)| pattern));
    let mut waiting: BTreeSet<DomainPattern> = read.deferred.held;
    waiting.extend(new.cloned());
    waiting.retain(|pattern| !known.contains(pattern));
    let snapshot = Arc::new(Snapshot::new(Parts {
        gateway: last.gateway.clone(),
        domains: last.domains.clone(),
        removed: last
            .removed
            .iter()
            .filter(|(_, until)| **until > inputs.now)
            .map(|(d, u)| (d.clone(), *u))
            .collect(),
        confirmed: last.confirmed.clone(),
        resolutions: last.resolutions.clone(),
        held: waiting,
        incomplete: read.deferred.incomplete,
    }));
    for outcome in compilation.outcomes.values_mut().filter(|outcome| outcome.state == State::Accepted) {
        outcome.state = State::Kept;
    }
    let policy = match snapshot.clone().compile_after(None, &inputs.listeners, inputs.now) {
        Ok(reading) => {
            compilation.problems.extend(reading.problems);
            Some(Policy { revision: snapshot.revision.clone(), ..reading.policy })
        }
        Err(problem) => {
            compilation.problems.push(problem);
            None
        }
    };
    compilation.problems.push(held.to_string());
    compilation.mass_removal = Some(held);
    Compilation { policy, snapshot: Some(snapshot), ..compilation }
}

fn build(
    inputs: &Inputs,
    gateway: CompiledGateway,
    Read { accepted, mut deferred }: Read,
    mut compilation: Compilation,
) -> Compilation {
    let mut manifests = BTreeMap::new();
    let mut resolutions = BTreeMap::new();
    let mut table = Table::default();
    for (object, Accepted { manifest, compiled }) in accepted {
        if let Some(resolved) = &compiled.resolved {
            resolutions.insert(object.clone(), resolved.clone());
        }
        manifests.insert(object, manifest);
        table.add(compiled);
    }
    let grace = i64::try_from(gateway.gateway.removal_grace.as_secs()).unwrap_or(i64::MAX);
    // The present form of one that is kept may ask for what its own last form has.
    deferred.held.retain(|pattern| !table.known.contains_key(pattern));
    let removed = removal::removed(inputs, &table.known, inputs.now.saturating_add(grace));
    let manifest =
        MailGateway { metadata: essential(&gateway.manifest.metadata), spec: gateway.manifest.spec.clone() };
    let object = gateway.manifest.object_ref();
    let snapshot = Snapshot::new(Parts {
        gateway: Arc::new(manifest),
        domains: manifests,
        removed: removed.iter().map(|(pattern, until)| (pattern.to_string(), *until)).collect(),
        confirmed: removal::confirmed(inputs, &gateway.manifest, &removed),
        resolutions,
        held: deferred.held,
        incomplete: deferred.incomplete,
    });
    let policy = table.policy(&snapshot, gateway, removed);
    if let Some(outcome) = compilation.outcomes.get_mut(&object) {
        outcome.warnings.extend(advice::postmaster(&policy, inputs.now));
    }
    Compilation { policy: Some(policy), snapshot: Some(Arc::new(snapshot)), ..compilation }
}

/// Whether some client would get another answer at the banner than the rest.
fn asks_connections(gateway: &CompiledGateway) -> bool {
    gateway.gateway.ranges.iter().any(|range| {
        matches!(range.action, RangeAction::Reject | RangeAction::Defer)
            || range.tls.is_some_and(|tls| tls != torwart_core::ListenerTls::Offer)
            || !range.hidden.is_empty()
            || (range.action == RangeAction::Allow && !gateway.gateway.greet_delay.is_zero())
    })
}

// === impl Table ===

impl Table {
    fn add(&mut self, compiled: CompiledDomain) {
        let CompiledDomain { patterns, domain, route, resolved: _, unresolved: _ } = compiled;
        self.routes.entry(route.digest).or_insert_with(|| Arc::new(route));
        let domain = Arc::new(domain);
        self.known.extend(patterns.into_iter().map(|(pattern, _)| (pattern, domain.clone())));
    }

    fn policy(
        self,
        snapshot: &Snapshot,
        gateway: CompiledGateway,
        removed: BTreeMap<DomainPattern, i64>,
    ) -> Policy {
        Policy {
            revision: snapshot.revision.clone(),
            asks_connections: asks_connections(&gateway),
            gateway: gateway.gateway,
            domains: DomainTable::new(self.known, snapshot.held.iter().cloned(), removed),
            routes: self.routes,
            incomplete: snapshot.incomplete,
        }
    }
}

// === impl Compilation ===

impl Compilation {
    fn accept(&mut self, object: &ObjectRef, warnings: Vec<FieldError>) {
        self.outcomes.insert(object.clone(), Outcome { warnings, ..Outcome::accepted() });
    }

    fn reject(&mut self, object: &ObjectRef, errors: Vec<FieldError>) {
        self.keep_or_reject(object, errors, false);
    }

    fn keep_or_reject(&mut self, object: &ObjectRef, errors: Vec<FieldError>, kept: bool) {
        let outcome = self.outcomes.entry(object.clone()).or_insert_with(Outcome::accepted);
        outcome.state = if kept { State::Kept } else { State::Rejected };
        outcome.errors.extend(errors);
    }

    fn note_unresolved(&mut self, object: &ObjectRef, unresolved: &[FieldError]) {
        let Some(outcome) = self.outcomes.get_mut(object) else {
            return;
        };
        for one in unresolved {
            if !outcome.unresolved.contains(one) {
                outcome.unresolved.push(one.clone());
            }
        }
    }

    /// Whether the same inputs come to the same snapshot once this one is their `last`: nobody waits for a mail domain
    /// that goes with it, and no mass removal is to be confirmed by the name of the policy before it.
    pub fn is_settled(&self, inputs: &Inputs) -> bool {
        let Some(snapshot) = &self.snapshot else { return true };
        let last = inputs.last.as_deref();
        if last.is_some_and(|last| last.revision == snapshot.revision) {
            return true;
        }
        let contested =
            |outcome: &Outcome| outcome.errors.iter().any(|error| error.cause == Cause::DomainConflict);
        self.mass_removal.is_none() && !self.outcomes.values().any(contested)
    }

    /// Whether every object holds in its present form.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.outcomes.values().all(|outcome| outcome.state == State::Accepted)
    }
}

// === impl Outcome ===

impl Outcome {
    fn accepted() -> Self {
        Self { state: State::Accepted, errors: Vec::new(), warnings: Vec::new(), unresolved: Vec::new() }
    }
}

// === impl FieldError ===

impl FieldError {
    /// A mistake in what is written.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), cause: Cause::Invalid }
    }
}

// === impl Errors ===

impl Errors {
    pub(crate) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(path, message));
    }

    /// Notes a list that is longer than `most`.
    pub(crate) fn check_length<T>(&mut self, path: &str, list: &[T], most: usize) {
        if list.len() > most {
            self.add(path, format!("has {} entries; there can be {most}", list.len()));
        }
    }

    /// Notes a text that is longer than `most` characters.
    pub(crate) fn check_text(&mut self, path: &str, text: &str, most: usize) {
        let length = text.chars().count();
        if length > most {
            self.add(path, format!("has {length} characters; there can be {most}"));
        }
    }

    pub(crate) fn into_inner(self) -> Vec<FieldError> {
        self.0
    }
}

#[cfg(test)]
pub(crate) mod tests;
