//! Objects and their names.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{MailDomainSpec, MailGatewaySpec, Time};

/// The `apiVersion` of both kinds.
pub const API_VERSION: &str = "torwart.dev/v1alpha1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    MailGateway,
    MailDomain,
}

/// What names an object: `MailDomain mail/example-org`, or `MailGateway default`, which is in no namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    pub kind: Kind,
    /// Empty for a MailGateway.
    pub namespace: String,
    pub name: String,
}

/// What the gateway needs of a Kubernetes object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The object's name, unique among its kind in its namespace.
    pub name: String,
    /// The namespace of a MailDomain. In files it is `default` if none is written. A MailGateway has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Counts the changes of `spec`; set by the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the object was made; set by the API server. The older of two objects that claim a domain keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Time>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The installation: who it is, who may use it, and what holds for every mail domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MailGateway {
    pub metadata: Metadata,
    pub spec: MailGatewaySpec,
}

/// Mail domains that share a route and a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MailDomain {
    pub metadata: Metadata,
    pub spec: MailDomainSpec,
}

/// An object of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    MailGateway(MailGateway),
    MailDomain(MailDomain),
}

/// Whether what was judged also happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// It does.
    Enforce,
    /// Everything is judged, let pass, and counted as what would have been.
    Monitor,
}

// === impl Kind ===

impl Kind {
    pub const ALL: [Self; 2] = [Self::MailGateway, Self::MailDomain];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MailGateway => "MailGateway",
            Self::MailDomain => "MailDomain",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl ObjectRef ===

impl ObjectRef {
    pub fn gateway(name: impl Into<String>) -> Self {
        Self { kind: Kind::MailGateway, namespace: String::new(), name: name.into() }
    }

    pub fn domain(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: Kind::MailDomain, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::MailGateway => write!(f, "{} {}", self.kind, self.name),
            Kind::MailDomain => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

// === impl Manifest ===

impl Manifest {
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::MailGateway(gateway) => &gateway.metadata,
            Self::MailDomain(domain) => &domain.metadata,
        }
    }

    pub fn object_ref(&self) -> ObjectRef {
        match self {
            Self::MailGateway(gateway) => gateway.object_ref(),
            Self::MailDomain(domain) => domain.object_ref(),
        }
    }
}

// === impl MailGateway, MailDomain ===

impl MailGateway {
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef::gateway(&self.metadata.name)
    }
}

impl MailDomain {
    /// The namespace is `default` if none is written.
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef::domain(self.metadata.namespace.as_deref().unwrap_or("default"), &self.metadata.name)
    }
}
