//! The verdict: gathers facts, judges them by policy, remembers greylist state.
//!
//! ```text
//!    edge --gRPC--> grpc ---,
//!                           v
//!    edge --Verdicts--> Engine --facts--> policy::decide (pure)
//!                         |  ^               |
//!                 keyed hashes |        groups to greylist
//!                         v  |               v
//!                        Store: one atomic step per call and mail domain
//!                          memory | redb:PATH | redis://...
//! ```

pub mod clock;
pub mod dns;
pub mod dns_lists;
pub mod engine;
pub mod explain;
pub mod grpc;
pub mod keys;
pub mod metrics;
pub mod store;
#[cfg(test)]
mod testing;

pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{CheckOptions, Engine, LONGEST_STORE_TIMEOUT, MessageLimits, Options, StartError};
pub use grpc::{GrpcError, GrpcServer, GrpcSettings};
pub use keys::{KeyFileError, Keyring};
pub use metrics::Metrics;
pub use store::{Store, StoreError, StoreSpec, open_store};
