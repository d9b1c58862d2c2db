//! `route`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Port, ServicePort};

/// Where accepted mail goes, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// What the mail server speaks. SMTP if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The mail servers, at least one. Those of the lowest priority are tried first.
    pub upstreams: Vec<Upstream>,
    /// TLS towards the mail servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// How the mail server learns who the client was. None if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_identity: Option<ClientIdentity>,
    /// Which refusals of the mail server become temporary ones. UntilFirstDelivery if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_bounce: Option<SoftBounce>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// RFC 5321.
    #[serde(rename = "SMTP")]
    Smtp,
    /// RFC 2033: one recipient per transaction.
    #[serde(rename = "LMTP")]
    Lmtp,
}

/// A mail server: either `host` or `service`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// A host name, resolved by the system's resolver, or an address (IPv6 without brackets).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port at `host`. 25 if left out, for LMTP 24.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Instead of `host`: a Kubernetes Service in the object's own namespace. Needs the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// The lowest is tried first. 0 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The share among upstreams of one priority, from 1 to 1000. 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The most connections that one process holds open to it, from 1 to 10000. 20 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

/// A Kubernetes Service in the object's own namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceRef {
    /// Its name.
    pub name: String,
    /// Its port, by number or by name. The protocol's own if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<ServicePort>,
}

/// TLS towards the mail servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamTls {
    /// Opportunistic if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// TLS from the first byte, without STARTTLS. No if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub implicit: Option<bool>,
    /// The name that the certificate must carry. The host's own if left out or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A ConfigMap in the object's own namespace whose `ca.crt` is trusted instead of the public authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// Takes any certificate, falls back to clear text.
    Opportunistic,
    /// Chain and name are checked; without TLS no mail.
    Required,
}

/// Names a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaRef {
    /// Its name; empty is none.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientIdentity {
    /// It does not.
    None,
    /// Postfix's XCLIENT.
    #[serde(rename = "XCLIENT")]
    Xclient,
    /// Postfix's XFORWARD.
    #[serde(rename = "XFORWARD")]
    Xforward,
    /// A PROXY protocol header, version 2.
    ProxyV2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SoftBounce {
    /// All, until one message was delivered through this route. Each process remembers that for itself and in memory
    /// only: after a restart, or a change of the route, the first messages are treated with care again.
    UntilFirstDelivery,
    /// All.
    Always,
    /// None.
    Never,
}
