//! The two kinds of `torwart.dev/v1alpha1`: MailGateway and MailDomain.
//!
//! These types are the one source of truth for the YAML that people write, the schema of the CRDs and the reference
//! in the docs: each field's comment is its description there. A field that another level may fill in is an
//! `Option` without a default; what holds in the end is decided by `torwart_policy::compile`.
//!
//! ```text
//!   text --yaml::load--> Document { object, manifest, positions } + every Mistake with file, line and field
//! ```
//!
//! Types ignore fields that they don't know, so that an older process can read a newer object; [`yaml`] reports them,
//! because in a file they are mistakes.

mod checks;
mod domain;
mod gateway;
mod greylisting;
pub mod limits;
mod lists;
mod object;
mod ranges;
mod route;
mod status;
mod values;
pub mod yaml;

pub use checks::{
    ArcCheck, Checks, DkimCheck, DmarcAction, DmarcCheck, DnsListsCheck, EarlyTalkerCheck, HeloCheck,
    ReverseDnsCheck, Scoring, SenderDomainCheck, SpfCheck, UriListsCheck,
};
pub use domain::{GatewayRef, Limits, MailDomainSpec};
pub use gateway::{
    Defaults, DnsList, DnsListKind, DnsListResponse, LabelSelector, LabelSelectorOperator,
    LabelSelectorRequirement, MailGatewaySpec, Probe, Tenant, TenantUpstreams, UriList, UriListResponse,
};
pub use greylisting::{GreylistIdentity, GreylistMode, GreylistPrefix, Greylisting, StoreFailure};
pub use lists::{Recipients, SenderEntry, SenderLists};
pub use object::{API_VERSION, Enforcement, Kind, MailDomain, MailGateway, Manifest, Metadata, ObjectRef};
pub use ranges::{EhloKeyword, IpRange, RangeAction, RangeChecks, RangeGreylisting, RangeTls, Switch};
pub use route::{
    CaRef, ClientIdentity, Protocol, Route, ServiceRef, SoftBounce, TlsMode, Upstream, UpstreamTls,
};
pub use status::{Condition, ConditionStatus, MailDomainStatus, MailGatewayStatus};
pub use values::{
    Cidr, Duration, InvalidCidr, InvalidDuration, InvalidPort, InvalidRate, InvalidSize, InvalidTime, Port,
    Rate, ServicePort, Size, Time,
};
