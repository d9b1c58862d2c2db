//! The real binary between real mail servers, one file per behaviour.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod arrows;
mod bad_input;
mod check;
mod clients;
mod delivery;
mod drain;
mod greylist;
mod hostile_upstream;
mod ledger;
mod mail_log;
mod peers;
mod proxy_protocol;
mod relay;
mod reload;
mod sink_faults;
mod smuggling;
mod store;
mod timeouts;
mod tls;
