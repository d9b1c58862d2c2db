//! The binary as a process: its log lines, its admin port, signals.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::Value;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) const POLICY: &str = "
apiVersion: torwart.dev/v1alpha1
kind: MailGateway
metadata: {name: default}
spec: {hostname: mx.example.net}
---
apiVersion: torwart.dev/v1alpha1
kind: MailDomain
metadata: {name: example, namespace: mail}
spec: {domains: [example.org], route: {upstreams: [{host: 127.0.0.1, port: 1}]}}
";

pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
    pub(crate) smtp: String,
    pub(crate) admin: String,
}

/// `torwart` with these arguments, and nothing in its environment.
pub(crate) fn torwart(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torwart"));
    command.env_clear().args(arguments).stdout(Stdio::piped());
    command
}

/// `torwart run` on free ports.
pub(crate) fn run(policy: &Path, flags: &[&str]) -> Command {
    let mut command = torwart(&["run", "--policy"]);
    command.arg(policy).args(["--smtp-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).args(flags);
    command
}

pub(crate) fn spawn(mut command: Command) -> Running {
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    // Without room: as long as the test asks for no line, nobody reads the pipe.
    let (sender, lines) = sync_channel(0);
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    Running { child, lines, smtp: String::new(), admin: String::new() }
}

/// Waits until it is ready.
pub(crate) fn start(command: Command) -> Running {
    let mut running = spawn(command);
    let ready = running.line("ready");
    running.smtp = ready["smtp"].as_str().unwrap_or_default().to_owned();
    running.admin = ready["admin"].as_str().unwrap().to_owned();
    running
}

impl Running {
    /// Reads on to the line with this message.
    #[track_caller]
    pub(crate) fn line(&mut self, message: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|error| panic!("no line {message:?}: {error}"));
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["message"] == message {
                return value;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// What the admin port says.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = connect(&self.admin);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A folder with one good policy file.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    folder
}

/// What a recipient in this domain hears.
pub(crate) fn recipient(running: &Running, domain: &str) -> String {
    let mut stream = connect(&running.smtp);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut reply = String::new();
    let commands =
        ["HELO client.example", "MAIL FROM:<a@sender.example>", &format!("RCPT TO:<bob@{domain}>")];
    reader.read_line(&mut reply).unwrap();
    for command in commands {
        write!(stream, "{command}\r\n").unwrap();
        reply.clear();
        reader.read_line(&mut reply).unwrap();
    }
    reply
}
