//! A snapshot that an operator accepted to a policy.

use std::net::SocketAddr;
use std::sync::Arc;

use torwart_api::ObjectRef;

use super::domain::{DomainContext, Refused};
use super::{FieldError, Table, gateway};
use crate::domains::DomainPattern;
use crate::inputs::{Inputs, Tenancy};
use crate::model::Policy;
use crate::snapshot::Snapshot;

/// The policy of a snapshot, as it was accepted; or, if not all of it can be used here, which objects can't.
///
/// # Errors
/// If the MailGateway can't be used.
pub(crate) fn compile_published(
    snapshot: &Arc<Snapshot>,
    listeners: &[SocketAddr],
    now: i64,
) -> Result<Result<Policy, Vec<(ObjectRef, String)>>, String> {
    let (gateway, errors) = gateway::read(snapshot.gateway.clone());
    if !errors.is_empty() {
        return Err(format!("{} can't be used: {}", gateway.manifest.object_ref(), in_words(&errors)));
    }
    let inputs = Inputs {
        tenancy: Tenancy::Published,
        listeners: listeners.to_vec(),
        last: Some(snapshot.clone()),
        now,
        ..Inputs::default()
    };
    let context = DomainContext { inputs: &inputs, gateway: &gateway };
    let mut compiled = Vec::with_capacity(snapshot.domains.len());
    let mut failed = Vec::new();
    for (object, manifest) in &snapshot.domains {
        match context.compile(object, manifest) {
            Ok(domain) => compiled.push(domain),
            Err(Refused { mut errors, unresolved, .. }) => {
                errors.extend(unresolved);
                failed.push((object.clone(), in_words(&errors)));
            }
        }
    }
    if !failed.is_empty() {
        return Ok(Err(failed));
    }
    let removed = snapshot.removed.iter();
    let removed = removed.filter_map(|(text, until)| Some((DomainPattern::parse_any(text).ok()?, *until)));
    let mut table = Table::default();
    compiled.into_iter().for_each(|domain| table.add(domain));
    Ok(Ok(table.policy(snapshot, gateway, removed.collect())))
}

fn in_words(errors: &[FieldError]) -> String {
    let errors = errors.iter().map(|FieldError { path, message, .. }| format!("{path}: {message}"));
    errors.collect::<Vec<_>>().join("; ")
}
