//! From custom resources to a published policy, and back from verdict pods to conditions.
//!
//! ```text
//!   API server --watch--> Cluster --+
//!   ConfigMaps --read---> Published +--plan (pure)--> Write... --by the lease holder alone--> API server
//!   verdict pods --ask--> Pods -----+
//!
//!   ConfigMaps --follow--> Publication --> a verdict process
//! ```

mod client;
pub mod crd;
pub mod follow;
pub mod names;
pub mod plan;
mod rim;
pub mod secrets;
pub mod values;

pub use rim::{Operator, Settings, StartError};
