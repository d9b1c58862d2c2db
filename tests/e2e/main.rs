//! The real binary between real mail servers, one file per behaviour.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod apart;
mod arrows;
mod bad_input;
mod book;
mod check;
mod clients;
mod delivery;
mod docs;
mod drain;
mod greylist;
mod hostile_upstream;
mod ledger;
mod mail_log;
mod mtls;
mod peers;
mod proxy_protocol;
mod redis_servers;
mod relay;
mod reload;
mod shipping;
mod sink_faults;
mod smuggling;
mod store;
mod store_failures;
mod store_under_load;
mod timeouts;
mod tls;
mod trace;
mod verdict_lost;
