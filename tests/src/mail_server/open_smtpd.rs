//! A private OpenSMTPD.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;

use super::Role;
use super::unpacked::{Unpacked, User};
use crate::{Lines, Process, endpoint, net, tool};

pub(super) struct OpenSmtpd {
    process: Process,
    pub(super) endpoint: SocketAddr,
    unpacked: Unpacked,
}

/// Those that Debian's OpenSMTPD is built for.
const USERS: [User; 2] = [User { name: "opensmtpd", id: 65_202 }, User { name: "opensmtpq", id: 65_203 }];
/// The user `nobody` and group `nogroup` in Debian.
const NOBODY: u32 = 65534;

// === impl OpenSmtpd ===

impl OpenSmtpd {
    #[track_caller]
    pub(super) fn start(role: Role) -> Self {
        let unpacked = Unpacked::new("opensmtpd", &USERS);
        let mail = unpacked.folder().join("mail");
        fs::create_dir(&mail).unwrap();
        chown(&mail, Some(NOBODY), Some(NOBODY)).unwrap();
        unpacked.create_folder("var/lib/opensmtpd/empty", 0o755);
        unpacked.create_folder("var/spool/smtpd", 0o711);
        let endpoint = endpoint();
        unpacked.write("etc/smtpd.conf", &settings(role, endpoint, unpacked.folder()));
        let name = match role {
            Role::Sender { .. } => "relay.sender.example",
            Role::Mailbox => "mailbox.example.org",
        };
        unpacked.write("etc/mailname", &format!("{name}\n"));
        let process = Process::start(unpacked.command("smtpd").arg("-d"));
        net::wait_listening(endpoint);
        Self { process, endpoint, unpacked }
    }

    pub(super) fn lines(&self) -> &Lines {
        self.process.lines()
    }

    pub(super) fn folder(&self) -> &Path {
        self.unpacked.folder()
    }

    /// It waits for minutes after a deferral, unless it is told to go.
    pub(super) fn flush(&self) {
        let id = self.process.id().to_string();
        // It wants to be set-group-id, which the file is not: nobody has installed it.
        let group = USERS[1].id.to_string();
        let inside = ["--target", &id, "--mount", "--root", "--setgid", &group];
        let told = tool("nsenter", &[&inside[..], &["smtpctl", "schedule", "all"]].concat());
        assert_eq!(told.code, 0, "{}", told.text);
    }
}

fn settings(role: Role, endpoint: SocketAddr, folder: &Path) -> String {
    let (host, port, path) = (endpoint.ip(), endpoint.port(), folder.display());
    let action = match role {
        // `smtp` is SMTP with STARTTLS where there is one.
        Role::Sender { relay } => {
            format!("action out relay host \"smtp://{relay}\"\nmatch from any for any action out\n")
        }
        Role::Mailbox => format!(
            "action in maildir \"{path}/mail/inbox\" virtual {{ \"@\" = nobody }}\n\
             match from any for domain example.org action in\n"
        ),
    };
    format!(
        "smtp max-message-size 200M\n\
         smtp limit max-mails 10000\n\
         listen on {host} port {port}\n\
         {action}"
    )
}
