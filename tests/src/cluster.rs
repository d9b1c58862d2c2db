//! A Kubernetes API server, and Torwart as it runs in a cluster.
//!
//! ```text
//!   kubectl, Api --> API server <-- torwart operator  (its ServiceAccount's token alone)
//!                        ^  Pod ..> torwart verdict   (its ServiceAccount's token alone)
//!                        |              ^
//!                     Installation   torwart edge     (no token)
//! ```
//!
//! The server is the one that `TORWART_TEST_KUBECONFIG` names, with an administrator's rights. Nodes are not needed:
//! a Pod is an object whose status the test writes, and leads to a process of the test. Each test has a namespace and
//! a MailGateway of its own, so that many can run at once.

mod api;
mod forwarder;
mod history;
mod installation;
mod kind;
mod manifest;
mod own;
mod pod;

pub use api::{Api, Refused};
pub use forwarder::Forwarder;
pub use history::{History, Index};
pub use installation::Installation;
pub use kind::Kind;
pub use manifest::{condition, manifest_name};
pub use own::OwnCluster;
pub use pod::Pod;

/// A word that no other test has used.
pub(crate) fn unique() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    uuid.chars().take(8).collect()
}
