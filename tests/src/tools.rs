//! Programs that run once: swaks, smtp-source, Python.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Process;

#[derive(Debug)]
pub struct Output {
    pub code: i32,
    /// Both streams, line by line as they came.
    pub text: String,
}

/// Long enough for a program that sends thousands of messages on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a program to its end.
#[track_caller]
pub fn tool(program: &str, arguments: &[&str]) -> Output {
    run(Command::new(program).args(arguments))
}

/// Runs any command to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let mut process = Process::start(command.stdin(Stdio::null()));
    let status = process.wait(LIMIT);
    process.lines().wait_closed(LIMIT);
    Output { code: status.code().unwrap_or(-1), text: process.lines().all().join("\n") }
}

impl Output {
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        run(command)
    }
}

/// One message by swaks.
#[track_caller]
pub fn swaks(server: SocketAddr, from: &str, to: &str, more: &[&str]) -> Output {
    let server = server.to_string();
    let mut arguments =
        vec!["--server", &server, "--from", from, "--to", to, "--helo", "client.sender.example"];
    arguments.extend(more);
    tool("swaks", &arguments)
}

/// A Python script; its arguments come as `sys.argv[1:]`.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) -> Output {
    let mut all = vec!["-c", script];
    all.extend(arguments);
    tool("python3", &all)
}
