//! The operator's I/O: watches, the Lease, writes, and questions to verdict pods.
//!
//! ```text
//!   watched (API server) --+                                   +--> carry_out (API server)
//!   published (ConfigMaps)-+--> run: plan, as values ----------+
//!   ask (verdict pods) ----+      only while leadership holds
//! ```

mod ask;
mod carry_out;
mod leadership;
mod lease;
mod metrics;
mod objects;
mod pauses;
mod published;
mod run;
mod watched;

pub use run::{Operator, Settings, StartError};

/// Somebody else wrote first (409).
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
