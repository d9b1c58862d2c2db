//! postgrey, the policy server that greylists for Postfix.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::{Process, endpoint, net};

pub struct Postgrey {
    _process: Process,
    pub endpoint: SocketAddr,
    _folder: TempDir,
}

impl Postgrey {
    /// With an empty database and no white list.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = endpoint();
        let mut command = Command::new("postgrey");
        command.arg(format!("--inet={endpoint}")).arg(format!("--dbdir={}", folder.path().display()));
        command.args(["--user=root", "--group=root", "--whitelist-clients=/dev/null"]);
        command.arg("--whitelist-recipients=/dev/null");
        let process = Process::start(&mut command);
        net::wait_listening(endpoint);
        Self { _process: process, endpoint, _folder: folder }
    }
}
