//! The edge as a whole: real sessions against a scripted verdict and real sockets.

mod drain;
mod harness;
mod limits;
mod relay;
mod size;
mod starttls;
mod verdict;
