//! Names of the objects that operator and verdict share. The RBAC rules name them too.

pub use torwart_api::yaml::CA_LABEL;
use torwart_policy::publish::Slot;

/// Owner of the fields that the operator writes (server-side apply).
pub const FIELD_MANAGER: &str = "torwart-operator";

/// The labels of the ConfigMaps that hold policy.
pub const POLICY_LABELS: [(&str, &str); 3] = [
    ("app.kubernetes.io/name", "torwart"),
    ("app.kubernetes.io/component", "policy"),
    ("app.kubernetes.io/managed-by", FIELD_MANAGER),
];

/// The key of the index in its ConfigMap.
pub const INDEX_KEY: &str = "index.json";

/// The ConfigMap that says which chunks make the policy.
pub fn index_name(gateway: &str) -> String {
    format!("torwart-policy-{gateway}")
}

/// The ConfigMap of one slot.
pub fn slot_name(gateway: &str, slot: Slot) -> String {
    format!("torwart-policy-{gateway}-{slot}")
}

/// The Lease whose holder writes.
pub fn lease_name(gateway: &str) -> String {
    format!("torwart-operator-{gateway}")
}
