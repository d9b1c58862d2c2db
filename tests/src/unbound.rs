//! A real unbound that answers from zones of the test's own, and asks nobody.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::{Process, endpoint};

/// Killed when it is dropped.
pub struct Unbound {
    _process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Unbound {
    /// `zones` are answered from `records` alone, which are lines of a zone file, as in
    /// `2.0.0.127.list.example. A 127.0.0.2`. All other names are refused.
    #[track_caller]
    pub fn start(zones: &[&str], records: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let address = endpoint();
        let mut text = format!(
            "server:\n  interface: {}\n  port: {}\n  access-control: 127.0.0.0/8 allow\n  do-daemonize: no\n  \
             use-syslog: no\n  logfile: \"\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  directory: \"{}\"\n  \
             num-threads: 1\n  module-config: \"iterator\"\n  do-ip6: no\n  local-zone: \".\" refuse\n",
            address.ip(),
            address.port(),
            folder.path().display(),
        );
        for zone in zones {
            let _ = writeln!(text, "  local-zone: \"{zone}\" static");
        }
        for record in records {
            let _ = writeln!(text, "  local-data: '{record}'");
        }
        text.push_str("remote-control:\n  control-enable: no\n");
        let file = folder.path().join("unbound.conf");
        std::fs::write(&file, text).unwrap();
        let process = Process::start(Command::new("unbound").arg("-d").arg("-c").arg(&file));
        let ready = "start of service";
        process.lines().wait(ready, |line| line.contains(ready).then_some(()));
        Self { _process: process, address, _folder: folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
