//! The real binary between real mail servers, one file per behaviour.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod admin;
mod apart;
mod arrows;
mod bad_input;
mod book;
mod check;
mod classes;
mod clients;
mod delivery;
mod differential;
mod dns_lists;
mod docs;
mod drain;
mod explain;
mod greylist;
mod held;
mod hostile_upstream;
mod ledger;
mod mail_log;
mod mtls;
mod peers;
mod proof;
mod proxy_protocol;
mod redis_servers;
mod relay;
mod reload;
mod shipping;
mod sink_faults;
mod smtp_extensions;
mod smuggling;
mod store;
mod store_failures;
mod store_under_load;
mod timeouts;
mod tls;
mod trace;
mod upstreams;
mod verdict_lost;
