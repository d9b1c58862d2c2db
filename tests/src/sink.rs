//! smtp-sink, Postfix's own test server.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::{Process, endpoint};

pub struct SmtpSink {
    process: Process,
    pub endpoint: SocketAddr,
    dump: TempDir,
}

impl SmtpSink {
    /// With its flags, as in `-r RCPT`; each message goes to a file of its own.
    #[track_caller]
    pub fn start(flags: &[&str]) -> Self {
        Self::start_at(endpoint(), flags)
    }

    #[track_caller]
    pub fn start_at(endpoint: SocketAddr, flags: &[&str]) -> Self {
        let dump = tempfile::tempdir().unwrap();
        fs::set_permissions(dump.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let template = dump.path().join("m.");
        let mut command = Command::new("smtp-sink");
        command.args(["-u", "nobody", "-d"]).arg(&template).args(flags);
        command.arg(endpoint.to_string()).arg("1000");
        let process = Process::start(&mut command);
        crate::net::wait_listening(endpoint);
        Self { process, endpoint, dump }
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it kept, in no order. Each begins with lines of its own about the envelope.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.dump.path()).unwrap();
        files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    }
}
