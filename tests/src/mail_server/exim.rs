//! A private Exim.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use super::Role;
use super::unpacked::{Unpacked, User};
use crate::{Lines, Process, endpoint, net};

pub(super) struct Exim {
    _process: Process,
    log: Process,
    pub(super) endpoint: SocketAddr,
    unpacked: Unpacked,
}

/// The user that Debian's Exim is built for.
const USER: User = User { name: "Debian-exim", id: 65_201 };

// === impl Exim ===

impl Exim {
    #[track_caller]
    pub(super) fn start(role: Role) -> Self {
        let unpacked = Unpacked::new("exim4-daemon-light", &[USER]);
        let folder = unpacked.folder();
        for name in ["spool", "log", "mail"] {
            fs::create_dir(folder.join(name)).unwrap();
            chown(folder.join(name), Some(USER.id), Some(USER.id)).unwrap();
        }
        let mainlog = folder.join("log/mainlog");
        fs::write(&mainlog, "").unwrap();
        chown(&mainlog, Some(USER.id), Some(USER.id)).unwrap();
        let endpoint = endpoint();
        unpacked.write("etc/exim4/exim4.conf", &settings(role, endpoint, folder));
        // In the foreground, with a look into the queue every second.
        let process = Process::start(unpacked.command("/usr/sbin/exim4").args(["-bdf", "-q1s"]));
        let log = Process::start(Command::new("tail").args(["-n", "+1", "-f"]).arg(mainlog));
        log.lines().wait("started", |line| line.contains("daemon started").then_some(()));
        net::wait_listening(endpoint);
        Self { _process: process, log, endpoint, unpacked }
    }

    pub(super) fn lines(&self) -> &Lines {
        self.log.lines()
    }

    pub(super) fn folder(&self) -> &Path {
        self.unpacked.folder()
    }
}

fn settings(role: Role, endpoint: SocketAddr, folder: &Path) -> String {
    let (host, port, path) = (endpoint.ip(), endpoint.port(), folder.display());
    let (name, router, transport) = match role {
        Role::Sender { relay } => (
            "relay.sender.example",
            format!("driver = manualroute\nroute_list = * {}\nself = send\ntransport = out", relay.ip()),
            format!("driver = smtp\nport = {}", relay.port()),
        ),
        Role::Mailbox => (
            "mailbox.example.org",
            "driver = accept\ndomains = example.org\ntransport = out".to_owned(),
            format!(
                "driver = appendfile\ndirectory = {path}/mail/inbox\nmaildir_format\ncreate_directory\n\
                 envelope_to_add\nreturn_path_add\ndelivery_date_add\nuser = {}",
                USER.name
            ),
        ),
    };
    format!(
        "primary_hostname = {name}\n\
         spool_directory = {path}/spool\n\
         log_file_path = {path}/log/%slog\n\
         log_selector = +smtp_connection +tls_cipher\n\
         local_interfaces = {host}\n\
         daemon_smtp_ports = {port}\n\
         acl_smtp_rcpt = accept\n\
         message_size_limit = 0\n\
         received_headers_max = 100\n\
         smtp_accept_max = 200\n\
         smtp_accept_queue_per_connection = 0\n\
         smtp_accept_max_per_connection = 0\n\
         host_lookup =\n\
         rfc1413_hosts =\n\
         keep_environment =\n\
         begin routers\n\
         all:\n{router}\n\
         begin transports\n\
         out:\n{transport}\n\
         begin retry\n\
         * * F,1h,1s\n"
    )
}
