//! A private Dovecot that takes mail by LMTP.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::{Lines, Process, endpoint, net};

/// On loopback only, with configuration, state and mailboxes in a folder of its own. It knows the mailboxes that it was
/// started with and no other.
pub struct Dovecot {
    process: Process,
    pub lmtp: SocketAddr,
    folder: TempDir,
}

const PROGRAM: &str = "/usr/sbin/dovecot";
/// The user `nobody` and group `nogroup` in Debian.
const NOBODY: u32 = 65534;

// === impl Dovecot ===

impl Dovecot {
    #[track_caller]
    pub fn start(mailboxes: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["run", "state", "mail"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        chown(root.join("mail"), Some(NOBODY), Some(NOBODY)).unwrap();
        let path = root.display();
        let users: String = mailboxes
            .iter()
            .map(|name| format!("{name}::{NOBODY}:{NOBODY}::{path}/mail/{name}::\n"))
            .collect();
        fs::write(root.join("users"), users).unwrap();
        let lmtp = endpoint();
        let (host, port) = (lmtp.ip(), lmtp.port());
        let settings = format!(
            "base_dir = {path}/run\n\
             state_dir = {path}/state\n\
             protocols = lmtp\n\
             listen = {host}\n\
             log_path = /dev/stderr\n\
             ssl = no\n\
             hostname = mailbox.example.org\n\
             postmaster_address = postmaster@example.org\n\
             mail_location = maildir:~/Maildir\n\
             login_trusted_networks = 127.0.0.0/8\n\
             passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
             userdb {{\n  driver = passwd-file\n  args = username_format=%n {path}/users\n}}\n\
             service lmtp {{\n  inet_listener lmtp {{\n    address = {host}\n    port = {port}\n  }}\n}}\n"
        );
        fs::write(root.join("dovecot.conf"), settings).unwrap();
        let process = Process::start(Command::new(PROGRAM).args(["-F", "-c"]).arg(root.join("dovecot.conf")));
        process.lines().wait("started", |line| line.contains("starting up for lmtp").then_some(()));
        net::wait_listening(lmtp);
        Self { process, lmtp, folder }
    }

    pub fn lines(&self) -> &Lines {
        self.process.lines()
    }

    /// The messages that came for `name`, in no order.
    pub fn mailbox(&self, name: &str) -> Vec<Vec<u8>> {
        let folder: PathBuf = self.folder.path().join("mail").join(name).join("Maildir/new");
        let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
        files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    }
}
