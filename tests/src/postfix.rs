//! A private Postfix: configuration, queue and data in a folder of its own, on loopback only.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::{Lines, Process, endpoint, net};

pub enum PostfixRole {
    /// Takes mail for anyone and brings it to this server, from its own queue, soon again after a deferral.
    Sender { relay: SocketAddr },
    /// Delivers `example.org` into a Maildir.
    Mailbox,
    /// The same, with further lines for main.cf.
    MailboxWith { main: String },
    /// Further lines for main.cf. Its log goes to a file, so [`Postfix::log`] has nothing to wait for.
    Measured { main: String },
}

pub struct Postfix {
    process: Process,
    pub endpoint: SocketAddr,
    folder: TempDir,
}

/// One line per service: name, type, private, unprivileged, chroot, wakeup, maximum of processes, command.
const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// Postfix's own daemon folder in Debian.
const MASTER: &str = "/usr/lib/postfix/sbin/master";
/// The user `nobody` and group `nogroup` in Debian.
const NOBODY: u32 = 65534;

impl Postfix {
    #[track_caller]
    pub fn start(role: &PostfixRole) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        let postfix = user("postfix");
        for name in ["conf", "queue", "mail", "data"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        chown(root.join("data"), Some(postfix), None).unwrap();
        chown(root.join("mail"), Some(NOBODY), Some(NOBODY)).unwrap();
        queue_folders(&root.join("queue"), postfix);
        let endpoint = endpoint();
        let main = settings(role, root);
        fs::write(root.join("conf/main.cf"), main).unwrap();
        // tlsmgr may be asked for randomness even where TLS is off.
        let services =
            format!("{endpoint} inet n - n - - smtpd\ntlsmgr unix - - n 1000? 1 tlsmgr\n{SERVICES}");
        fs::write(root.join("conf/master.cf"), services).unwrap();
        // `-s`: the log goes to our end of its standard output.
        let mut command = Command::new(MASTER);
        command.arg("-s").arg("-c").arg(root.join("conf"));
        command.env("MAIL_CONFIG", root.join("conf")).env("MAIL_LOGTAG", "postfix");
        let process = if matches!(role, PostfixRole::Measured { .. }) {
            let process = Process::start_logging(&mut command, &root.join("log"));
            net::wait_listening(endpoint);
            process
        } else {
            let process = Process::start(&mut command);
            process.lines().wait("daemon started", |line| line.contains("daemon started").then_some(()));
            process
        };
        Self { process, endpoint, folder }
    }

    /// Waits for a line of its log that holds all of `parts`.
    #[track_caller]
    pub fn log(&self, parts: &[&str]) -> String {
        self.process.lines().wait(&format!("{parts:?}"), |line| {
            parts.iter().all(|part| line.contains(part)).then(|| line.to_owned())
        })
    }

    pub fn lines(&self) -> &Lines {
        self.process.lines()
    }

    /// How many lines of the log so far hold all of `parts`.
    pub fn count(&self, parts: &[&str]) -> usize {
        let lines = self.process.lines().all();
        lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// The messages in the Maildir, in no order.
    pub fn mailbox(&self) -> Vec<Vec<u8>> {
        let Ok(files) = fs::read_dir(self.folder.path().join("mail/inbox/new")) else { return Vec::new() };
        files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn settings(role: &PostfixRole, root: &Path) -> String {
    let path = root.display();
    let mut main = format!(
        "compatibility_level = 3.6\n\
         config_directory = {path}/conf\n\
         queue_directory = {path}/queue\n\
         data_directory = {path}/data\n\
         mail_owner = postfix\n\
         setgid_group = postdrop\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         mydestination =\n\
         mynetworks = 127.0.0.0/8\n\
         maillog_file = /dev/stdout\n\
         alias_maps =\n\
         alias_database =\n\
         local_recipient_maps =\n\
         smtpd_client_connection_count_limit = 0\n"
    );
    match role {
        PostfixRole::Sender { relay } => {
            let (host, port) = (relay.ip(), relay.port());
            let _ = write!(
                main,
                "myhostname = relay.sender.example\n\
                 relayhost = [{host}]:{port}\n\
                 disable_dns_lookups = yes\n\
                 minimal_backoff_time = 1s\n\
                 maximal_backoff_time = 2s\n\
                 queue_run_delay = 1s\n\
                 transport_retry_time = 1s\n\
                 smtp_tls_security_level = may\n\
                 smtp_tls_loglevel = 1\n\
                 smtp_connection_cache_on_demand = no\n"
            );
        }
        PostfixRole::Mailbox | PostfixRole::MailboxWith { .. } => {
            let _ = write!(
                main,
                "myhostname = mailbox.example.org\n\
                 virtual_mailbox_domains = example.org\n\
                 message_size_limit = 0\n\
                 virtual_mailbox_limit = 0\n\
                 local_header_rewrite_clients =\n\
                 virtual_mailbox_base = {path}/mail\n\
                 virtual_mailbox_maps = static:inbox/\n\
                 virtual_uid_maps = static:{NOBODY}\n\
                 virtual_gid_maps = static:{NOBODY}\n"
            );
            if let PostfixRole::MailboxWith { main: more } = role {
                main.push_str(more);
            }
        }
        PostfixRole::Measured { main: more } => main.push_str(more),
    }
    main
}

/// What `postfix check` would make; it also wants to look at files that all instances share.
fn queue_folders(queue: &Path, postfix: u32) {
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
        "trace", "maildrop", "public", "pid",
    ] {
        let folder = queue.join(name);
        fs::create_dir(&folder).unwrap();
        let (owner, group, mode) = match name {
            "pid" => (0, None, 0o755),
            "maildrop" => (postfix, Some(group("postdrop")), 0o730),
            "public" => (postfix, Some(group("postdrop")), 0o710),
            _ => (postfix, None, 0o700),
        };
        chown(&folder, Some(owner), group).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn user(name: &str) -> u32 {
    number("/etc/passwd", name)
}

fn group(name: &str) -> u32 {
    number("/etc/group", name)
}

fn number(file: &str, name: &str) -> u32 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("{name} is not in {file}: is Postfix installed? see tests/run"));
    line.split(':').nth(1).and_then(|number| number.parse().ok()).unwrap()
}
