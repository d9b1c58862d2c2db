//! Real redis-server processes of a test: one alone, a primary with its replica and Sentinels, a Cluster.
//!
//! Each has an endpoint and a folder of its own, keeps nothing unless it is asked to, and is killed when it is
//! dropped. What Debian may have started for itself is neither used nor touched.

mod cluster;
mod sentinel;

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Certificate, Output, Process, endpoint};

pub use cluster::{RedisCluster, RedisClusterBuilder};
pub use sentinel::{RedisSentinels, RedisSentinelsBuilder};

/// The last line that a server writes before it is of use.
const READY: &str = "Ready to accept connections";

pub struct RedisServer {
    process: Process,
    address: SocketAddr,
    folder: TempDir,
    access: Access,
    /// Sentinels have another last line.
    sentinel: bool,
}

/// What it takes to speak to a server.
#[derive(Clone, Debug, Default)]
struct Access {
    password: Option<String>,
    /// The certificate and its key: the server's own, and what clients trust.
    tls: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug, Default)]
pub struct RedisServerBuilder {
    access: Access,
    lines: Vec<String>,
    persistent: bool,
    /// Has a line in its log when the first copy is complete.
    replica: bool,
}

impl RedisServer {
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// `redis://` or `rediss://` with address and port; never with a password.
    pub fn url(&self) -> String {
        format!("{}://{}", self.access.scheme(), self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its working folder: configuration, and what it saves.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What redis-cli prints for one command, as the default user; an error of the server is text as well.
    ///
    /// Panics when the server cannot be reached or does not answer.
    #[track_caller]
    pub fn cli(&self, command: &[&str]) -> String {
        let output = self.try_cli(command);
        assert_eq!(output.code, 0, "redis-cli {command:?} at {}: {}", self.address, output.text);
        output.text
    }

    /// As [`RedisServer::cli`], whatever comes of it.
    #[track_caller]
    pub fn try_cli(&self, command: &[&str]) -> Output {
        Output::of(self.access.redis_cli(self.address).args(command))
    }

    /// Sends a signal by its name, as in `STOP`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Kills it at once, as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, after it was killed, at the same address with the same folder; waits until it is of use.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch_again();
        self.wait_ready();
    }

    /// As [`RedisServer::start_again`], without the wait: it may still be loading what it saved.
    #[track_caller]
    pub fn launch_again(&mut self) {
        assert!(!self.process.is_running(), "kill it first");
        self.process = launch(self.folder.path(), self.sentinel);
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        let wanted = if self.sentinel { "+monitor master" } else { READY };
        self.process.lines().wait(wanted, |line| line.contains(wanted).then_some(()));
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A stopped process takes no other signal.
        self.process.kill();
    }
}

/// The files of a server lie in its folder, under fixed names.
fn launch(folder: &Path, sentinel: bool) -> Process {
    let mut command = Command::new("redis-server");
    command.arg(folder.join("redis.conf")).current_dir(folder);
    if sentinel {
        command.arg("--sentinel");
    }
    Process::start(&mut command)
}

fn begin(folder: TempDir, address: SocketAddr, access: Access, config: &str, sentinel: bool) -> RedisServer {
    fs::write(folder.path().join("redis.conf"), config).unwrap();
    let process = launch(folder.path(), sentinel);
    RedisServer { process, address, folder, access, sentinel }
}

/// The lines that every server and every Sentinel has.
fn common_config(folder: &Path, address: SocketAddr, access: &Access) -> String {
    let (ip, port, folder) = (address.ip(), address.port(), folder.display());
    // Without a source address a connection between two of them comes from 127.0.0.1, and the peer takes that for
    // the address of the other.
    let mut text = format!(
        "bind {ip}\nbind-source-addr {ip}\nprotected-mode no\ndaemonize no\nlogfile \"\"\ndir {folder}\n"
    );
    match &access.tls {
        None => {
            let _ = writeln!(text, "port {port}");
        }
        Some((cert, key)) => {
            let (cert, key) = (cert.display(), key.display());
            let _ = writeln!(
                text,
                "port 0\ntls-port {port}\ntls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {cert}\n\
                 tls-auth-clients no\ntls-replication yes"
            );
        }
    }
    text
}

// === impl Access ===

impl Access {
    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "rediss" } else { "redis" }
    }

    /// redis-cli for a server; a command or an option of its own follows.
    fn redis_cli(&self, server: SocketAddr) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-h", &server.ip().to_string(), "-p", &server.port().to_string()]);
        // Not as an argument: it warns of that on its output.
        command.env_remove("REDISCLI_AUTH");
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        if let Some((cert, _)) = &self.tls {
            command.arg("--tls").arg("--cacert").arg(cert);
        }
        command
    }
}

// === impl RedisServerBuilder ===

impl RedisServerBuilder {
    /// A line of redis.conf, as in `maxmemory 3mb`.
    pub fn config(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// The default user's.
    pub fn password(mut self, password: &str) -> Self {
        self.access.password = Some(password.to_owned());
        self
    }

    /// Another user, as in `user x on >pw ~tw* +@all`.
    pub fn acl(self, user: &str) -> Self {
        self.config(user)
    }

    /// Speaks nothing but TLS, with a certificate that should name [`crate::address`].
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.access.tls = Some((certificate.cert.clone(), certificate.key.clone()));
        self
    }

    /// What it has acknowledged survives a kill.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Follows another server; has a full copy when it is started.
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        self.replica = true;
        let (ip, port) = (primary.address.ip(), primary.address.port());
        if let Some(password) = &primary.access.password {
            self.lines.push(format!("masterauth {password}"));
        }
        self.config(&format!("replicaof {ip} {port}"))
    }

    #[track_caller]
    pub fn start(self) -> RedisServer {
        let replica = self.replica;
        let server = self.launch();
        server.wait_ready();
        if replica {
            let wanted = "sync: Finished with success";
            server.process.lines().wait(wanted, |line| line.contains(wanted).then_some(()));
        }
        server
    }

    #[track_caller]
    fn launch(self) -> RedisServer {
        let folder = tempfile::tempdir().unwrap();
        let address = endpoint();
        let mut text = common_config(folder.path(), address, &self.access);
        let (ip, port) = (address.ip(), address.port());
        // A replica would else be known by whatever address its connection comes from; and a primary waits 5 s
        // for further replicas before it sends the first copy.
        let _ = writeln!(
            text,
            "replica-announce-ip {ip}\nreplica-announce-port {port}\nrepl-diskless-sync-delay 0\nsave \"\""
        );
        if self.persistent {
            text.push_str("appendonly yes\nappendfsync always\n");
        }
        if let Some(password) = &self.access.password {
            let _ = writeln!(text, "requirepass {password}\nmasterauth {password}");
        }
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        begin(folder, address, self.access, &text, false)
    }
}
