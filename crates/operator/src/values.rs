//! What the operator knows and what it wants to be written, as values: the rim makes and spends them, `plan` turns
//! the one into the other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use torwart_api::{Manifest, ObjectRef};
use torwart_policy::Snapshot;
use torwart_policy::compile::FieldError;
use torwart_policy::publish::{ChunkHash, Index, Slot};
use torwart_proto::v1;

/// What the API server holds, once every first list is complete.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Our MailGateway, if it is there, and the MailDomains that name it. Objects of other gateways are not here.
    pub objects: BTreeMap<ObjectRef, Arc<Seen>>,
    /// Labels by namespace.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// By namespace and name.
    pub services: BTreeMap<(String, String), SeenService>,
    /// The `ca.crt` of labelled ConfigMaps, by namespace and name.
    pub authorities: BTreeMap<(String, String), String>,
}

/// A MailGateway or MailDomain.
#[derive(Clone, Debug)]
pub struct Seen {
    pub object: ObjectRef,
    pub uid: String,
    pub generation: i64,
    pub form: Form,
    /// As it is there, whoever wrote it; `Null` if it has none.
    pub status: Value,
}

/// An object, as far as it can be read.
#[derive(Clone, Debug)]
pub enum Form {
    Read(Manifest),
    /// The schema let something by that our types do not take.
    Malformed {
        errors: Vec<FieldError>,
        /// What could be read in spite of that.
        draft: Option<Manifest>,
    },
}

/// What of a Service a route needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenService {
    pub kind: ServiceKind,
    pub ports: Vec<SeenPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// With its address, if it has one already.
    ClusterIp(Option<IpAddr>),
    /// Its name leads to the pods.
    Headless,
    /// Its name leads to another name, wherever that is.
    ExternalName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenPort {
    pub name: String,
    pub port: u16,
    /// TCP, that is.
    pub usable: bool,
}

/// What is published now.
#[derive(Clone, Debug, Default)]
pub struct Published {
    pub index: Option<PublishedIndex>,
    pub slots: BTreeMap<Slot, PublishedSlot>,
    /// What index and slots come to; `None` if there is nothing, or nothing that can be read.
    pub snapshot: Option<Arc<Snapshot>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedIndex {
    pub resource_version: String,
    /// `Err`: it can't be read, and why.
    pub index: Result<Index, String>,
    /// A newer release wrote it, in a format that this one does not read: this operator must not write.
    pub is_newer: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedSlot {
    pub resource_version: String,
    /// Compressed, by hash: the current one and the one before.
    pub chunks: BTreeMap<ChunkHash, Arc<[u8]>>,
}

/// What verdict pods say of themselves.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// Every Ready pod by name; `Err` if it did not answer, with the reason.
    pub ready: BTreeMap<String, Result<Arc<PodReport>, String>>,
    /// When they were asked, in Unix seconds; 0: not yet.
    pub asked_at: i64,
}

#[derive(Clone, Debug)]
pub struct PodReport {
    pub status: v1::GetStatusResponse,
    /// By MailDomain, `namespace/name`.
    pub outcomes: BTreeMap<String, v1::UpstreamOutcomes>,
}

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Slot(SlotWrite),
    Index(IndexWrite),
    Status(StatusWrite),
    Event(EventWrite),
}

/// The whole of a slot's ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    pub slot: Slot,
    /// Compressed, by hash.
    pub chunks: BTreeMap<ChunkHash, Arc<[u8]>>,
    /// The resourceVersion that it replaces; `None`: it must not be there yet.
    pub against: Option<String>,
}

/// The whole of the index's ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexWrite {
    pub index: Index,
    /// The resourceVersion that it replaces; `None`: it must not be there yet.
    pub against: Option<String>,
}

/// The status of one object, whole (server-side apply).
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    pub object: ObjectRef,
    pub uid: String,
    pub status: Value,
}

/// An Event about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventWrite {
    pub object: ObjectRef,
    pub uid: String,
    pub is_warning: bool,
    /// In one word, as in `DomainConflict`.
    pub reason: &'static str,
    /// What was being done, in one word, as in `Publish`.
    pub action: &'static str,
    pub message: String,
}
