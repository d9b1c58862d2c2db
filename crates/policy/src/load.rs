//! From files to a policy, and every mistake on the way with its place in the text.
//!
//! `torwart check`, `torwart run` and the watcher of policy files all come through here, so that what one of them
//! says, the others do.

mod choice;
mod judged;
mod reading;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use torwart_api::ObjectRef;
use torwart_api::yaml::Position;

use crate::compile::{Compilation, State, compile};
use crate::inputs::Inputs;
use crate::snapshot::Snapshot;
use judged::Judged;
use reading::{Entry, Reading};

/// A policy file, or the reason why it could not be read.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// As shown in messages.
    pub name: String,
    pub content: Result<String, String>,
}

/// A policy from files.
#[derive(Debug)]
pub struct Loaded {
    pub compilation: Compilation,
    /// Mistakes and warnings, by file and place.
    pub findings: Vec<Finding>,
}

/// One mistake or warning. Shown as `FILE:LINE:COLUMN: KIND namespace/name: spec.path: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Empty if it is about no file.
    pub file: Arc<str>,
    pub position: Option<Position>,
    pub severity: Severity,
    /// The object, or `document 2` if it does not say which one it is.
    pub subject: String,
    /// Empty if it is about the whole.
    pub path: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Mistake,
    Warning,
}

/// Compiles the policy in `files`. What can't be read or is not accepted keeps the form that it has in `last`; an
/// object that is in no file any more is gone. `listeners` are the gateway's own addresses, `now` is in Unix seconds.
pub fn compile_files(
    files: &[SourceFile],
    last: Option<Arc<Snapshot>>,
    listeners: &[SocketAddr],
    now: i64,
) -> Loaded {
    let mut reading = Reading::of(files);
    let judged = Judged::of(&reading, listeners, now);
    let incomplete = reading.hides_domains(last.as_deref());
    let unread = reading.unread(last.as_deref());
    let chosen = choice::choose(&mut reading, &judged, last.as_deref());
    let mut findings = std::mem::take(&mut reading.findings);
    findings.extend(chosen.findings);
    let inputs = Inputs {
        objects: chosen.objects,
        listeners: listeners.to_vec(),
        resolutions: reading.resolutions(),
        last,
        now,
        incomplete,
        ..Inputs::default()
    };
    let mut compilation = compile(&inputs);
    add_sources(&mut compilation, &reading.entries, &chosen.places, inputs.last.as_deref());
    if let Some(snapshot) = compilation.snapshot.as_mut().map(Arc::make_mut) {
        snapshot.unread = unread;
    }
    let entry = |index: &usize| reading.entries.get(*index);
    for (object, outcome) in &compilation.outcomes {
        let errors = outcome.errors.iter().chain(&outcome.unresolved).map(|error| (Severity::Mistake, error));
        let warnings = outcome.warnings.iter().map(|warning| (Severity::Warning, warning));
        for (severity, found) in errors.chain(warnings) {
            let certain = severity == Severity::Warning || !judged.overrules(object.kind, &found.path);
            let places = chosen.places.get(object).into_iter().flatten().filter(|_| certain);
            findings.extend(places.filter_map(entry).map(|entry| entry.finding(severity, found)));
        }
    }
    findings.extend(judged.findings(&reading.entries));
    // A MailGateway that seems to be missing may be what could not be read.
    let hidden = reading.partly.values().any(|part| part.hides_gateway) && compilation.mass_removal.is_none();
    let problems = compilation.problems.iter().filter(|_| !hidden);
    findings.extend(problems.map(|problem| Finding::about("".into(), problem.clone())));
    findings.sort();
    findings.dedup();
    Loaded { compilation, findings }
}

/// Notes in the snapshot where each of its objects was read.
fn add_sources(
    compilation: &mut Compilation,
    entries: &[Entry],
    places: &BTreeMap<ObjectRef, Vec<usize>>,
    last: Option<&Snapshot>,
) {
    let Some(snapshot) = compilation.snapshot.as_mut().map(Arc::make_mut) else {
        return;
    };
    let names = snapshot.domains.keys().cloned().chain([snapshot.gateway.object_ref()]);
    snapshot.sources = names
        .filter_map(|object| {
            let at_last = || last?.sources.get(&object).cloned();
            let source = match places.get(&object).map(Vec::as_slice) {
                Some([only]) => entries.get(*only).map(|entry| entry.file.clone()),
                // Of several of one name it may be any.
                Some([first, ..]) => at_last().or_else(|| Some(entries.get(*first)?.file.clone())),
                Some([]) | None => at_last(),
            }?;
            Some((object, source))
        })
        .collect();
}

// === impl Loaded ===

impl Loaded {
    /// Mistakes only.
    pub fn mistakes(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Mistake)
    }

    /// Warnings only.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Warning)
    }

    /// How many objects keep their last accepted form because their present one is not accepted.
    pub fn kept(&self) -> usize {
        self.compilation.outcomes.values().filter(|outcome| outcome.state == State::Kept).count()
    }
}

// === impl Finding ===

impl Finding {
    /// A mistake of a whole file, or of the whole policy.
    fn about(file: Arc<str>, message: String) -> Self {
        let (subject, path) = (String::new(), String::new());
        Self { file, position: None, severity: Severity::Mistake, subject, path, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.position {
            Some(position) => format!("{}:{position}", self.file),
            None => self.file.to_string(),
        };
        let parts = [&place, &self.subject, &self.path, &self.message];
        let mut parts = parts.into_iter().filter(|part| !part.is_empty());
        if let Some(first) = parts.next() {
            f.write_str(first)?;
        }
        parts.try_for_each(|part| write!(f, ": {part}"))
    }
}

#[cfg(test)]
mod tests;
