//! The edge as a whole: real sessions against a scripted verdict and real sockets.

mod crowd;
mod drain;
pub(crate) mod harness;
mod last_word;
mod limits;
mod outcomes;
mod relay;
mod size;
mod starttls;
mod tracing;
mod verdict;
