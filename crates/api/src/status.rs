//! `status` of both kinds: what the operator found and what became of an object's newest form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;

/// What became of a MailDomain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MailDomainStatus {
    /// The generation that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The generation that is in force; older than the observed one if that is not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation_in_force: Option<i64>,
    /// Greylisting as it is in force, with what it inherits: `Suspicious`, `Always` or `Off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greylisting: Option<String>,
    /// Accepted, ResolvedRefs, Programmed, UpstreamReachable and Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What became of a MailGateway, and of the policy that it makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MailGatewayStatus {
    /// The generation that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The number of the published snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The published policy's revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How many MailDomains are in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail_domains: Option<u32>,
    /// Accepted, Programmed, ClientIPPreserved, ListsUsable and ReputationClean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A condition as Kubernetes has them (`metav1.Condition`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` changed last.
    pub last_transition_time: Time,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}
