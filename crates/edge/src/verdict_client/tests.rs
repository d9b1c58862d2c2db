//! Against real gRPC servers on loopback, which answer as they are told.

mod balance;
mod faults;
mod harness;
mod messages;
mod names;
mod once;
mod wire;
