//! What the end-to-end tests and the benchmark share: the real binary as a child process, the servers that
//! stand around it, and a raw client that can say anything.
//!
//! ```text
//!   client (raw, swaks, smtp-source, smtplib, Postfix) -> [HAProxy] -> Gateway -> Upstream | Postfix | smtp-sink
//!
//!   Gateway = one Part (run), or a Fleet of Parts (edges, verdicts) with a Redis: alone, Sentinels or Cluster
//! ```
//!
//! Every wait has a limit and hangs on an event: a line of a log, a reply, a connection. Every server listens on
//! a loopback address of its own process, so tests that run side by side cannot meet on a port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
pub mod cluster;
mod dns;
mod dovecot;
mod fleet;
mod gateway;
mod haproxy;
mod lines;
mod mail_server;
mod metrics;
mod net;
mod part;
mod policy;
mod postfix;
mod postgrey;
mod process;
mod prometheus;
mod redis;
mod sink;
mod tls;
mod tools;
mod tree;
mod unbound;
mod upstream;

pub use client::{Client, Reply};
pub use dns::DnsServer;
pub use dovecot::Dovecot;
pub use fleet::{Fleet, FleetBuilder};
pub use gateway::{Gateway, GatewayBuilder};
pub use haproxy::{HaProxy, SendProxy};
pub use lines::Lines;
pub use mail_server::{Brand, MailServer, Stored};
pub use metrics::Metrics;
pub use net::{Endpoint, address, client_address, endpoint, wait_listening};
pub use part::{Part, PartBuilder};
pub use policy::PolicyFile;
pub use postfix::{Postfix, PostfixRole};
pub use postgrey::Postgrey;
pub use process::Process;
pub use prometheus::{Prometheus, Rule, Series, Target};
pub use redis::{
    RedisCluster, RedisClusterBuilder, RedisSentinels, RedisSentinelsBuilder, RedisServer, RedisServerBuilder,
};
pub use sink::SmtpSink;
pub use tls::{Authority, Certificate};
pub use tools::{Output, python, swaks, tool};
pub use tree::{root, sources};
pub use unbound::Unbound;
pub use upstream::{Act, Fault, Received, Step, Upstream, without_added_fields};

use std::time::{Duration, Instant};

/// How long a test waits for anything that should come at once. Only a failure takes that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Tries until it succeeds, for what comes with time and has no event: a greylisting delay that is over, a file
/// that was noticed. Panics when [`PATIENCE`] is over.
#[track_caller]
pub fn eventually(what: &str, mut succeeds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !succeeds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
