//! The Lua scripts that are a step each: one run of one script on one slot, which nothing can come between.
//!
//! They are twins of `store/steps.rs` and `torwart_policy::greylist`; the suite of all stores holds them together.
//! A script is some numbers and the clock, then what it shares with others, then its own lines.

use std::sync::LazyLock;

use redis::Cmd;
use torwart_policy::greylist::{COUNT_INTERVAL, LEASE, LONGEST_DELAY, MAX_COUNTED_SENDERS};

/// A script as the server knows it.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: &'static str,
    /// SHA-1 of the text, in hexadecimal.
    hash: String,
}

#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) check: Script,
    pub(super) deliver: Script,
    pub(super) give_back: Script,
    /// Records as they are.
    pub(super) read: Script,
    /// A delivery in a counter.
    pub(super) count: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts::assemble(include_str!("lua/clock.lua")));

#[cfg(test)]
static TEST_SCRIPTS: LazyLock<Scripts> =
    LazyLock::new(|| Scripts::assemble(include_str!("lua/test_clock.lua")));

// === impl Scripts ===

impl Scripts {
    pub(super) fn by_server_time() -> &'static Self {
        &SCRIPTS
    }

    /// The time is each script's last argument.
    #[cfg(test)]
    pub(super) fn by_test_clock() -> &'static Self {
        &TEST_SCRIPTS
    }

    fn assemble(clock: &str) -> Self {
        let numbers = format!(
            "local LEASE, LONGEST_DELAY = {LEASE}, {LONGEST_DELAY}\n\
             local MAX_COUNTED_SENDERS, COUNT_INTERVAL = {MAX_COUNTED_SENDERS}, {COUNT_INTERVAL}\n\n"
        );
        let records = include_str!("lua/records.lua");
        Self {
            check: Script::new(&[&numbers, clock, records, include_str!("lua/check.lua")]),
            deliver: Script::new(&[&numbers, clock, records, include_str!("lua/deliver.lua")]),
            give_back: Script::new(&[clock, include_str!("lua/give_back.lua")]),
            read: Script::new(&[clock, include_str!("lua/read.lua")]),
            count: Script::new(&[&numbers, clock, include_str!("lua/count.lua")]),
        }
    }
}

// === impl Script ===

impl Script {
    /// Is made once per process, so it may stay for ever.
    fn new(parts: &[&str]) -> Self {
        let text: &'static str = parts.concat().leak();
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }

    /// Arguments may follow.
    pub(super) fn command<const N: usize>(&self, keys: &[[u8; N]]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key.as_slice());
        }
        command
    }
}
