//! From manifests to a policy, and from facts to a verdict. Pure: no clock, no I/O, no async.
//!
//! ```text
//!   files, API objects           facts about a session
//!          | compile                     |
//!          v                             v
//!     Compilation { policy, outcomes } decide(policy, facts) -> verdict
//! ```

pub mod compile;
pub mod decide;
pub mod dns_lists;
pub mod domains;
pub mod fuzz;
pub mod greylist;
pub mod inputs;
pub mod load;
pub mod model;
pub mod patterns;
pub mod publish;
pub mod ranges;
pub mod snapshot;

pub use compile::{Compilation, compile};
pub use domains::DomainTable;
pub use inputs::Inputs;
pub use model::{DomainMatch, Policy};
pub use ranges::RangeTable;
pub use snapshot::Snapshot;
