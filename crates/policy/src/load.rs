//! From files to a policy, and every mistake on the way with its place in the text.
//!
//! `torwart check`, `torwart run` and the watcher of policy files all come through here, so that what one of them
//! says, the others do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use torwart_api::yaml::{self, Document, Position};
use torwart_api::{Manifest, ObjectRef};

use crate::compile::{Compilation, FieldError, State, compile};
use crate::inputs::{Inputs, Object};
use crate::snapshot::Snapshot;

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

/// Where an object stands.
struct Place {
    file: Arc<str>,
    document: Document,
}

/// Compiles the policy in `files`. What can't be read or is not accepted keeps the form that it has in `last`; an
/// object that is in no file any more is gone. `listeners` are the gateway's own addresses, `now` is in Unix seconds.
pub fn compile_files(
    files: &[SourceFile],
    last: Option<Arc<Snapshot>>,
    listeners: &[SocketAddr],
    now: i64,
) -> Loaded {
    let mut reading = Reading::default();
    for file in files {
        reading.read(file);
    }
    reading.keep_unread(last.as_deref());
    let Reading { objects, drafts, mut findings, places, partly } = reading;
    findings.extend(mistakes_of_drafts(&objects, drafts, listeners, &places));
    let inputs = Inputs { objects, listeners: listeners.to_vec(), last, now, ..Inputs::default() };
    let mut compilation = compile(&inputs);
    add_sources(&mut compilation, &places, inputs.last.as_deref());
    report(&compilation, &places, !partly.is_empty(), &mut findings);
    findings.sort();
    Loaded { compilation, findings }
}

/// What could be read of an object in spite of its mistakes.
struct Draft {
    manifest: Manifest,
    /// Paths at which what was read is not what was written.
    misread: Vec<String>,
}

#[derive(Default)]
struct Reading {
    objects: Vec<Object>,
    drafts: BTreeMap<ObjectRef, Draft>,
    findings: Vec<Finding>,
    places: BTreeMap<ObjectRef, Vec<Place>>,
    /// Files of which some part could not be read.
    partly: BTreeSet<Arc<str>>,
}

// === impl Reading ===

impl Reading {
    fn read(&mut self, file: &SourceFile) {
        let name: Arc<str> = file.name.as_str().into();
        let text = match &file.content {
            Ok(text) => text,
            Err(error) => {
                self.findings.push(Finding {
                    file: name.clone(),
                    position: None,
                    severity: Severity::Mistake,
                    subject: String::new(),
                    path: String::new(),
                    message: error.clone(),
                });
                self.partly.insert(name);
                return;
            }
        };
        let yaml::Loaded { documents, mistakes } = yaml::load(&file.name, text);
        let mut misread: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for mistake in &mistakes {
            misread.entry(mistake.document).or_default().push(list_or_field(&mistake.path).to_owned());
        }
        self.findings.extend(mistakes.into_iter().map(|mistake| Finding {
            file: name.clone(),
            position: Some(mistake.position),
            severity: Severity::Mistake,
            subject: match mistake.object {
                Some(object) => object.to_string(),
                None => format!("document {}", mistake.document),
            },
            path: mistake.path,
            message: mistake.message,
        }));
        for mut document in documents {
            let Some(object) = document.object.clone() else {
                self.partly.insert(name.clone());
                continue;
            };
            if !document.is_complete() {
                self.partly.insert(name.clone());
            }
            if let Some(manifest) = document.draft.take() {
                let misread = misread.remove(&document.number).unwrap_or_default();
                self.drafts.insert(object.clone(), Draft { manifest, misread });
            }
            self.objects.push(Object { object: object.clone(), manifest: document.manifest.take() });
            self.places.entry(object).or_default().push(Place { file: name.clone(), document });
        }
    }

    /// A document that does not say what it is may be any object of its file, so none of these is gone.
    fn keep_unread(&mut self, last: Option<&Snapshot>) {
        let Some(last) = last else {
            return;
        };
        for (object, source) in &last.sources {
            if self.partly.contains(source) && !self.places.contains_key(object) {
                self.objects.push(Object { object: object.clone(), manifest: None });
            }
        }
    }
}

/// A list that lost an entry counts its other entries anew, so all of it is misread.
fn list_or_field(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}

/// A mistake in a field's form must not hide the others of its object: what could be read is compiled as well, for its
/// mistakes only. Those that touch a misread field may come from there and are left out.
fn mistakes_of_drafts(
    objects: &[Object],
    drafts: BTreeMap<ObjectRef, Draft>,
    listeners: &[SocketAddr],
    places: &BTreeMap<ObjectRef, Vec<Place>>,
) -> Vec<Finding> {
    if drafts.is_empty() {
        return Vec::new();
    }
    let objects = objects
        .iter()
        .map(|Object { object, manifest }| {
            let draft = || drafts.get(object).map(|draft| draft.manifest.clone());
            Object { object: object.clone(), manifest: manifest.clone().or_else(draft) }
        })
        .collect();
    let inputs = Inputs { objects, listeners: listeners.to_vec(), ..Inputs::default() };
    let outcomes = compile(&inputs).outcomes;
    let mut findings = Vec::new();
    for (object, draft) in &drafts {
        let touches =
            |path: &str| draft.misread.iter().any(|at| path.starts_with(at.as_str()) || at.starts_with(path));
        for error in outcomes.get(object).into_iter().flat_map(|outcome| &outcome.errors) {
            // An object that is there twice is reported as such in any case.
            if !touches(&error.path) && error.path != "metadata.name" {
                findings.extend(placed(object, error, Severity::Mistake, places));
            }
        }
    }
    findings
}

/// A mistake or warning in each file in which its object stands.
fn placed<'a>(
    object: &'a ObjectRef,
    found: &'a FieldError,
    severity: Severity,
    places: &'a BTreeMap<ObjectRef, Vec<Place>>,
) -> impl Iterator<Item = Finding> + 'a {
    places.get(object).into_iter().flatten().map(move |place| Finding {
        file: place.file.clone(),
        position: Some(place.document.locate(&found.path)),
        severity,
        subject: object.to_string(),
        path: found.path.clone(),
        message: found.message.clone(),
    })
}

/// Notes in the snapshot where each of its objects was read.
fn add_sources(
    compilation: &mut Compilation,
    places: &BTreeMap<ObjectRef, Vec<Place>>,
    last: Option<&Snapshot>,
) {
    let Some(snapshot) = compilation.snapshot.as_mut().map(Arc::make_mut) else {
        return;
    };
    let names = snapshot.domains.keys().cloned().chain([snapshot.gateway.object_ref()]);
    snapshot.sources = names
        .filter_map(|object| {
            let here = places.get(&object).and_then(|places| places.first()).map(|place| place.file.clone());
            let source = here.or_else(|| last?.sources.get(&object).cloned())?;
            Some((object, source))
        })
        .collect();
}

fn report(
    compilation: &Compilation,
    places: &BTreeMap<ObjectRef, Vec<Place>>,
    partly: bool,
    findings: &mut Vec<Finding>,
) {
    for (object, outcome) in &compilation.outcomes {
        let errors = outcome.errors.iter().map(|error| (Severity::Mistake, error));
        let warnings = outcome.warnings.iter().map(|warning| (Severity::Warning, warning));
        for (severity, found) in errors.chain(warnings) {
            findings.extend(placed(object, found, severity, places));
        }
    }
    // A MailGateway that seems to be missing may be what could not be read.
    let problems = compilation.problems.iter().filter(|_| !partly || compilation.mass_removal.is_some());
    findings.extend(problems.map(|problem| Finding {
        file: "".into(),
        position: None,
        severity: Severity::Mistake,
        subject: String::new(),
        path: String::new(),
        message: problem.clone(),
    }));
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
