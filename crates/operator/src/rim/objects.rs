//! From the API server's objects to values. What can't be read is a value too: it never stalls a watch.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use serde_json::Value;
use torwart_api::limits::MAX_AUTHORITY;
use torwart_api::{Kind, MailDomain, MailGateway, Manifest, Metadata, ObjectRef, Time};
use torwart_policy::compile::FieldError;

use crate::values::{Form, Seen, SeenPort, SeenService, ServiceKind};

const GROUP: &str = "torwart.dev";
const VERSION: &str = "v1alpha1";

/// Mistakes of one object that are told; the first ones say enough.
const MOST_MISTAKES: usize = 20;

/// The name of a verdict's container port for questions.
const GRPC_PORT: &str = "grpc";

/// A Ready verdict pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenPod {
    pub(super) uid: String,
    /// `Err`: it can't be asked, and why.
    pub(super) address: Result<(IpAddr, u16), String>,
}

pub(super) fn resource(kind: Kind) -> ApiResource {
    let plural = match kind {
        Kind::MailGateway => "mailgateways",
        Kind::MailDomain => "maildomains",
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind.as_str()), plural)
}

/// The MailGateway that a MailDomain names, however badly the rest is written.
pub(super) fn gateway_of(object: &DynamicObject) -> &str {
    object.data.pointer("/spec/gatewayRef/name").and_then(Value::as_str).unwrap_or("default")
}

pub(super) fn seen(kind: Kind, mut object: DynamicObject) -> Seen {
    let meta = std::mem::take(&mut object.metadata);
    let name = meta.name.clone().unwrap_or_default();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let object_ref = match kind {
        Kind::MailGateway => ObjectRef::gateway(name),
        Kind::MailDomain => ObjectRef::domain(namespace, name),
    };
    let status = object.data.get_mut("status").map(Value::take).unwrap_or_default();
    let spec = object.data.get_mut("spec").map(Value::take).unwrap_or_default();
    let form = form(kind, metadata(&meta), spec);
    Seen {
        object: object_ref,
        uid: meta.uid.unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        form,
        status,
    }
}

fn metadata(meta: &ObjectMeta) -> Metadata {
    let created = meta.creation_timestamp.as_ref();
    Metadata {
        name: meta.name.clone().unwrap_or_default(),
        namespace: meta.namespace.clone(),
        generation: meta.generation,
        creation_timestamp: created.and_then(|time| Time::from_unix_seconds(time.0.as_second())),
        labels: BTreeMap::new(),
        annotations: meta.annotations.clone().unwrap_or_default(),
    }
}

fn form(kind: Kind, mut metadata: Metadata, spec: Value) -> Form {
    // What kubectl keeps there is as large as the object, and says nothing.
    metadata.annotations.retain(|key, _| key.starts_with("torwart.dev/"));
    let read = match kind {
        Kind::MailGateway => serde_json::from_value(spec.clone())
            .map(|spec| Manifest::MailGateway(MailGateway { metadata: metadata.clone(), spec })),
        Kind::MailDomain => serde_json::from_value(spec.clone())
            .map(|spec| Manifest::MailDomain(MailDomain { metadata: metadata.clone(), spec })),
    };
    read.map_or_else(|error| malformed(kind, &metadata, spec, &error), Form::Read)
}

/// Reads it once more as the text of a file, since that says which field is wrong and what can be read all the same.
fn malformed(kind: Kind, metadata: &Metadata, spec: Value, error: &serde_json::Error) -> Form {
    let mut named = serde_json::Map::new();
    named.insert("name".to_owned(), metadata.name.clone().into());
    if let Some(namespace) = &metadata.namespace {
        named.insert("namespace".to_owned(), namespace.clone().into());
    }
    let object = serde_json::json!({
        "apiVersion": torwart_api::API_VERSION,
        "kind": kind.as_str(),
        "metadata": named,
        "spec": spec,
    });
    let mut loaded = torwart_api::yaml::load("", &object.to_string());
    let mut errors: Vec<FieldError> = loaded
        .mistakes
        .drain(..)
        .take(MOST_MISTAKES)
        .map(|mistake| FieldError::new(mistake.path, mistake.message))
        .collect();
    if errors.is_empty() {
        errors.push(FieldError::new("spec", format!("can't be read: {error}")));
    }
    let mut draft = loaded.documents.pop().and_then(|document| document.draft);
    match &mut draft {
        Some(Manifest::MailGateway(gateway)) => gateway.metadata = metadata.clone(),
        Some(Manifest::MailDomain(domain)) => domain.metadata = metadata.clone(),
        None => {}
    }
    Form::Malformed { errors, draft }
}

/// Ours; of an object of which nothing can be read, none.
pub(super) fn annotations(seen: &Seen) -> Option<&BTreeMap<String, String>> {
    let manifest = match &seen.form {
        Form::Read(manifest) => Some(manifest),
        Form::Malformed { draft, .. } => draft.as_ref(),
    };
    Some(match manifest? {
        Manifest::MailGateway(gateway) => &gateway.metadata.annotations,
        Manifest::MailDomain(domain) => &domain.metadata.annotations,
    })
}

pub(super) fn service(service: Service) -> SeenService {
    let spec = service.spec.unwrap_or_default();
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let kind = match (spec.type_.as_deref(), address) {
        (Some("ExternalName"), _) => ServiceKind::ExternalName,
        (_, "None") => ServiceKind::Headless,
        (_, address) => ServiceKind::ClusterIp(address.parse().ok()),
    };
    let ports = spec.ports.unwrap_or_default();
    let ports = ports.into_iter().filter_map(|port| {
        Some(SeenPort {
            name: port.name.unwrap_or_default(),
            port: u16::try_from(port.port).ok()?,
            usable: port.protocol.is_none_or(|protocol| protocol == "TCP"),
        })
    });
    SeenService { kind, ports: ports.collect() }
}

/// Of one that is too large there is only so much that it is seen to be.
pub(super) fn authority(config_map: ConfigMap) -> Option<String> {
    let mut text = config_map.data?.remove("ca.crt")?;
    if text.len() > MAX_AUTHORITY {
        let most =
            (MAX_AUTHORITY + 1..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
        text.truncate(most);
        text.shrink_to_fit();
    }
    Some(text)
}

/// `None` if it is not Ready, or on its way out.
pub(super) fn pod(pod: Pod) -> Option<SeenPod> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status?;
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if !ready {
        return None;
    }
    let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
    let port = containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(GRPC_PORT))
        .and_then(|port| u16::try_from(port.container_port).ok());
    let ip = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
    let address = match (ip, port) {
        (Some(ip), Some(port)) => Ok((ip, port)),
        (None, _) => Err("it has no address yet".to_owned()),
        (_, None) => Err(format!("it has no container port named {GRPC_PORT}")),
    };
    Some(SeenPod { uid: pod.metadata.uid.unwrap_or_default(), address })
}

#[cfg(test)]
mod tests;
