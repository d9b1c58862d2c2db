//! One edge, three verdicts, a Redis.

use std::path::Path;

use super::{Gateway, GatewayBuilder, Kept};
use crate::{Fleet, Lines, Part, RedisServer};

/// A busy machine is no failure of the store: the tests that are about one say so themselves.
const STORE_TIMEOUT: &str = "1s";

/// Which part knows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Edge,
    Verdict,
    Both,
}

fn owner(flag: &str) -> Owner {
    match flag {
        "--log-format" | "--log-level" | "--log-addresses" | "--otlp-endpoint" | "--trace-sample-ratio" => {
            Owner::Both
        }
        "--message-memory"
        | "--inspect-limit"
        | "--test-message-check"
        | "--dns-server"
        | "--secrets-dir" => Owner::Verdict,
        _ if flag.starts_with("--store") || flag.starts_with("--grpc") => Owner::Verdict,
        _ => Owner::Edge,
    }
}

#[track_caller]
pub(super) fn start(builder: GatewayBuilder, policy: &Path) -> Gateway {
    let lines = Lines::new();
    let (store, redis) = match std::env::var("TORWART_TEST_STORE") {
        Ok(url) => (url, None),
        Err(_) => {
            let redis = RedisServer::start();
            (redis.url(), Some(redis))
        }
    };
    let edge = builder.taking_mail(Part::edge(), &lines);
    let mut fleet = Fleet::builder(&store).edge(edge);
    if !builder.flags.iter().any(|(name, _)| name == "--store-timeout") {
        fleet = fleet.verdict_flag("--store-timeout", STORE_TIMEOUT);
    }
    for (name, value) in &builder.flags {
        if owner(name) != Owner::Verdict {
            fleet = fleet.edge_flag(name, value);
        }
        if owner(name) != Owner::Edge {
            fleet = fleet.verdict_flag(name, value);
        }
    }
    let (parts, folder) = fleet.launch_with(policy, &lines).into_parts();
    parts.iter().for_each(Part::wait_ready);
    builder.made(parts, lines, policy, Kept { folders: vec![folder], _redis: redis })
}
