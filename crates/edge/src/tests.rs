//! The edge as a whole: real sessions against a scripted verdict and real sockets.

mod banner;
mod chunks;
mod crowd;
mod drain;
pub(crate) mod harness;
mod held;
mod last_word;
mod limits;
mod outcomes;
mod relay;
mod size;
mod starttls;
mod tracing;
mod utf8;
mod verdict;
