//! What `compile` is given: plain values, wherever they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use torwart_api::{Manifest, ObjectRef};

use crate::snapshot::Snapshot;

/// Everything that a policy is made of.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// In any order.
    pub objects: Vec<Object>,
    pub tenancy: Tenancy,
    /// Which MailGateway this installation is; `None`: the only one there is.
    pub gateway: Option<String>,
    /// What references lead to.
    pub resolutions: Resolutions,
    /// Where this gateway listens: no upstream may be there, or mail would go round in circles.
    pub listeners: Vec<SocketAddr>,
    /// What was accepted before; `None` at the first start.
    pub last: Option<Arc<Snapshot>>,
    /// Unix seconds.
    pub now: i64,
    /// Something could not be read at all, and `last` does not know what was in it: no domain is known to be unknown.
    pub incomplete: bool,
}

/// An object that is there, readable or not.
#[derive(Clone, Debug)]
pub struct Object {
    pub object: ObjectRef,
    /// `None` if it could not be read: the reader has reported why, and its last accepted form stays.
    pub manifest: Option<Manifest>,
    /// If it could not be read: what could be, in spite of its mistakes. It is never put in force; but the mail domains
    /// in it are deferred rather than refused.
    pub draft: Option<Manifest>,
}

/// Who may claim and reach what.
#[derive(Clone, Debug, Default)]
pub enum Tenancy {
    /// Everyone is the administrator, as in files.
    #[default]
    Administrator,
    /// Objects in the operator's namespace are the administrator's; others need an entry in `tenants`.
    Cluster {
        operator_namespace: String,
        /// The labels of every namespace.
        namespaces: BTreeMap<String, BTreeMap<String, String>>,
    },
    /// What an operator accepted: permissions and claims are settled, references lead where they led then.
    Published,
}

/// References and what they lead to. What is not in it could not be resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolutions {
    pub services: BTreeMap<ServiceKey, ServiceTarget>,
    /// Services that are there, but that no route may use, and why. What they led to before does not hold on.
    pub refused: BTreeMap<ServiceKey, String>,
    /// Namespace and name of every Service that is only a name for another host, wherever that is.
    pub external: BTreeSet<(String, String)>,
    /// `namespace/name` of a ConfigMap, and the PEM certificates in its `ca.crt`.
    pub authorities: BTreeMap<String, String>,
}

/// A Service's port as a route names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
    /// Number or name; empty if the route names none.
    pub port: String,
    /// Whether the route speaks LMTP: it decides which port is meant if none is named.
    pub lmtp: bool,
}

/// Where a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTarget {
    pub host: String,
    pub port: u16,
    /// Its address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

// === impl Object ===

impl From<Manifest> for Object {
    fn from(manifest: Manifest) -> Self {
        Self { object: manifest.object_ref(), manifest: Some(manifest), draft: None }
    }
}
