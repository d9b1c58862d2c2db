//! Every mistake at once: what is wrong with the meaning of documents whose form is wrong already.
//!
//! What could be read of each document is compiled for its mistakes only. A mistake that may come from what was
//! misread, in the document itself or in the MailGateway that it refers to, is left out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use torwart_api::yaml::Document;
use torwart_api::{Kind, ObjectRef};

use super::reading::{Entry, Reading};
use super::{Finding, Severity};
use crate::compile::{FieldError, compile};
use crate::inputs::{Inputs, Object};

/// The mistakes of every document by itself.
#[derive(Default)]
pub(super) struct Judged {
    /// By the document's place in the reading.
    errors: BTreeMap<usize, Vec<FieldError>>,
    /// Documents whose mistakes are not found in any other way.
    reported: Vec<usize>,
    /// Whether the MailGateway in the files is not what the MailDomains are compiled against.
    other_gateway: bool,
}

/// Fields that are judged together: a mistake in one may come from another.
const TOGETHER: [&[&str]; 7] = [
    &["delay", "retryWindow", "passTTL"],
    &["tagAt", "greylistAt", "rejectAt"],
    &["codes", "bits"],
    &["listed", "notListed"],
    &["host", "service", "port"],
    &["mode", "implicit"],
    &["operator", "values"],
];

// === impl Judged ===

impl Judged {
    pub(super) fn of(reading: &Reading, listeners: &[SocketAddr], now: i64) -> Self {
        let entries = &reading.entries;
        let mut names: BTreeMap<ObjectRef, usize> = BTreeMap::new();
        let mut needed = false;
        for (index, entry) in entries.iter().enumerate() {
            let object = entry.document.object.clone().filter(|object| !names.contains_key(object));
            needed |= entry.document.manifest.is_none() || object.is_none();
            if let Some(name) = object.or_else(|| entry.own_name()) {
                names.insert(name, index);
            }
        }
        let mut judged = Self::default();
        if !needed {
            return judged;
        }
        let gateways: Vec<_> = names.iter().filter(|(name, _)| name.kind == Kind::MailGateway).collect();
        let gateway = gateways.first().and_then(|(_, index)| Some((**index, entries.get(**index)?)));
        let compile_these = |objects: Vec<Object>| {
            let (listeners, resolutions) = (listeners.to_vec(), reading.resolutions());
            compile(&Inputs { objects, listeners, resolutions, now, ..Inputs::default() }).outcomes
        };
        let object = |(name, index): (&ObjectRef, &usize)| {
            let manifest = entries.get(*index)?.form().cloned();
            Some(Object { object: name.clone(), manifest, draft: None })
        };
        let mut outcomes = BTreeMap::new();
        for (name, index) in gateways.iter().skip(1) {
            outcomes.extend(compile_these(object((*name, *index)).into_iter().collect()));
        }
        let others = names.iter().filter(|(name, _)| name.kind == Kind::MailDomain);
        outcomes
            .extend(compile_these(gateways.into_iter().take(1).chain(others).filter_map(object).collect()));
        for (name, outcome) in outcomes {
            let Some((index, entry)) =
                names.get(&name).and_then(|index| Some((*index, entries.get(*index)?)))
            else {
                continue;
            };
            let errors = outcome.errors.into_iter().chain(outcome.unresolved);
            let certain = errors.filter(|error| !is_doubtful(entry, gateway.map(|(_, entry)| entry), error));
            judged.errors.insert(index, certain.collect());
        }
        judged.other_gateway = gateway
            .is_some_and(|(index, entry)| entry.document.manifest.is_none() || !judged.is_clean(index));
        let mut count: BTreeMap<Option<&ObjectRef>, usize> = BTreeMap::new();
        for entry in entries {
            *count.entry(entry.document.object.as_ref()).or_default() += 1;
        }
        let alone = |entry: &Entry| count.get(&entry.document.object.as_ref()) == Some(&1);
        judged.reported = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| judged.other_gateway || entry.document.manifest.is_none() || !alone(entry))
            .map(|(index, _)| index)
            .collect();
        judged
    }

    /// Whether no mistake was found in the document's meaning.
    pub(super) fn is_clean(&self, index: usize) -> bool {
        self.errors.get(&index).is_none_or(Vec::is_empty)
    }

    /// Whether a mistake at `path` was found against another MailGateway than the one in the files.
    pub(super) fn overrules(&self, kind: Kind, path: &str) -> bool {
        self.other_gateway && kind == Kind::MailDomain && in_gateway(path).is_some()
    }

    pub(super) fn findings<'j>(&'j self, entries: &'j [Entry]) -> impl Iterator<Item = Finding> + 'j {
        self.reported
            .iter()
            .filter_map(|index| Some((entries.get(*index)?, self.errors.get(index)?)))
            .flat_map(|(entry, errors)| errors.iter().map(|error| entry.finding(Severity::Mistake, error)))
    }
}

fn is_doubtful(entry: &Entry, gateway: Option<&Entry>, error: &FieldError) -> bool {
    let doubtful = |document: &Document, path: &str| {
        document.is_doubtful(path) || judged_with(path).iter().any(|other| document.is_doubtful(other))
    };
    let path = error.path.as_str();
    // Of one object that is there twice it is no news that both want the same domains.
    let itself = entry.document.object.as_ref();
    let itself = itself.is_some_and(|object| error.message.contains(&format!("which {object} ")));
    let inherited = || {
        let (Some(gateway), Some(path)) = (gateway, in_gateway(path)) else {
            return false;
        };
        !gateway.document.is_complete() || doubtful(&gateway.document, &path)
    };
    let domain = matches!(entry.form().map(|form| form.object_ref().kind), Some(Kind::MailDomain));
    itself || doubtful(&entry.document, path) || (domain && inherited())
}

/// The field of the MailGateway that a field of a MailDomain is judged by.
fn in_gateway(path: &str) -> Option<String> {
    let spec = path.strip_prefix("spec.")?;
    let section = spec.split(['.', '[']).next().unwrap_or_default();
    match section {
        "gatewayRef" => Some("metadata.name".to_owned()),
        "checks" if spec.starts_with("checks.dnsLists.only") => Some("spec.dnsLists".to_owned()),
        "checks" if spec.starts_with("checks.uriLists.only") => Some("spec.uriLists".to_owned()),
        "checks" | "greylisting" | "scoring" | "limits" => Some(format!("spec.defaults.{spec}")),
        _ => None,
    }
}

/// The other fields that a mistake at `path` may come from.
fn judged_with(path: &str) -> Vec<String> {
    // A prefix counts with the priorities of all ranges that have it.
    if let Some((ranges, rest)) = path.split_once("ipRanges[")
        && rest.contains("].cidrs[")
    {
        return vec![format!("{ranges}ipRanges")];
    }
    // A list's kind says which sign its scores have.
    if let Some((list, rest)) = path.split_once(".responses[")
        && rest.ends_with("].score")
    {
        return vec![format!("{list}.kind")];
    }
    let Some((parent, field)) = path.rsplit_once('.') else {
        return Vec::new();
    };
    let others = TOGETHER.iter().filter(|fields| fields.contains(&field)).flat_map(|fields| fields.iter());
    others.filter(|other| **other != field).map(|other| format!("{parent}.{other}")).collect()
}
