//! Runs a command while a Redis Cluster runs beside it, with `TORWART_TEST_STORE` set to its URL and
//! `TORWART_TEST_TOPOLOGY=split`: the end-to-end tests over edge, verdicts and Redis.
//!
//!     torwart-with-redis-cluster cargo nextest run --package torwart-tests

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, ExitCode};

use torwart_tests::RedisCluster;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().expect("usage: torwart-with-redis-cluster COMMAND [ARGUMENT...]");
    let cluster = RedisCluster::start();
    let status = Command::new(program)
        .args(arguments)
        .env("TORWART_TEST_TOPOLOGY", "split")
        .env("TORWART_TEST_STORE", cluster.url())
        .status()
        .unwrap();
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
