//! The channel between edge, verdict and operator.
//!
//! ```text
//!   proto/torwart/verdict/v1/*.proto --(a test regenerates and compares)--> generated, `v1`
//!   core types <--convert, each field by name--> v1 types
//!   channel, tls: how both ends reach each other and prove who they are       trace: the trace goes along
//!   names: how any host is found by its name
//! ```

pub mod channel;
pub mod convert;
pub mod names;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod trace;

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::use_self,
    unreachable_pub,
    unused_qualifications,
    missing_docs,
    rustdoc::all
)]
#[rustfmt::skip]
#[path = "generated/torwart.verdict.v1.rs"]
pub mod v1;

/// The descriptor set of `torwart.verdict.v1`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/torwart.verdict.v1.binpb");
