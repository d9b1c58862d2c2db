//! Postfix, Exim and OpenSMTPD alike: each can be the mail server behind the gateway, or a sender with a queue before
//! it.

mod exim;
mod open_smtpd;
mod unpacked;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::exim::Exim;
use self::open_smtpd::OpenSmtpd;
use crate::{Lines, PATIENCE, Postfix, PostfixRole};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brand {
    Postfix,
    Exim,
    OpenSmtpd,
}

/// On loopback only, with configuration, queue and mailbox of its own.
pub struct MailServer {
    pub brand: Brand,
    pub endpoint: SocketAddr,
    running: Running,
}

enum Running {
    Postfix(Postfix),
    Exim(Exim),
    OpenSmtpd(OpenSmtpd),
}

/// What it does with the mail that it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Takes mail for anyone and brings it to this server, with STARTTLS if that is offered.
    Sender { relay: SocketAddr },
    /// Delivers `example.org`, whoever it is for, into one Maildir.
    Mailbox,
}

// === impl MailServer ===

impl MailServer {
    /// The one that the gateway stands in front of. It takes messages of any size.
    #[track_caller]
    pub fn mailbox(brand: Brand) -> Self {
        Self::start(brand, Role::Mailbox)
    }

    /// One that sends through the gateway, and tries again soon after a deferral.
    #[track_caller]
    pub fn sender(brand: Brand, relay: SocketAddr) -> Self {
        Self::start(brand, Role::Sender { relay })
    }

    #[track_caller]
    fn start(brand: Brand, role: Role) -> Self {
        let (endpoint, running) = match brand {
            Brand::Postfix => {
                let postfix = Postfix::start(&match role {
                    Role::Sender { relay } => PostfixRole::Sender { relay },
                    Role::Mailbox => PostfixRole::Mailbox,
                });
                (postfix.endpoint, Running::Postfix(postfix))
            }
            Brand::Exim => {
                let exim = Exim::start(role);
                (exim.endpoint, Running::Exim(exim))
            }
            Brand::OpenSmtpd => {
                let smtpd = OpenSmtpd::start(role);
                (smtpd.endpoint, Running::OpenSmtpd(smtpd))
            }
        };
        Self { brand, endpoint, running }
    }

    /// Its log.
    pub fn lines(&self) -> &Lines {
        match &self.running {
            Running::Postfix(postfix) => postfix.lines(),
            Running::Exim(exim) => exim.lines(),
            Running::OpenSmtpd(smtpd) => smtpd.lines(),
        }
    }

    /// Has it try what waits in its queue. Postfix and Exim do that every second by themselves.
    pub fn flush(&self) {
        if let Running::OpenSmtpd(smtpd) = &self.running {
            smtpd.flush();
        }
    }

    fn folder(&self) -> PathBuf {
        match &self.running {
            Running::Postfix(postfix) => postfix.folder().join("mail/inbox/new"),
            Running::Exim(exim) => exim.folder().join("mail/inbox/new"),
            Running::OpenSmtpd(smtpd) => smtpd.folder().join("mail/inbox/new"),
        }
    }

    /// The files of the Maildir, in no order.
    pub fn files(&self) -> Vec<PathBuf> {
        files(&self.folder())
    }

    /// The messages that are in the Maildir, in no order.
    pub fn messages(&self) -> Vec<Stored> {
        self.files()
            .iter()
            .map(|file| Stored { brand: self.brand, content: fs::read(file).unwrap() })
            .collect()
    }

    /// Waits until so many messages are there, as long as there come any.
    #[track_caller]
    pub fn wait_messages(&self, count: usize) -> Vec<Stored> {
        let (mut seen, mut end) = (0, Instant::now() + PATIENCE);
        while seen < count {
            let now = self.files().len();
            if now > seen {
                (seen, end) = (now, Instant::now() + PATIENCE);
            }
            assert!(
                Instant::now() < end,
                "{seen} of {count} messages came to {:?}:\n{}",
                self.brand,
                self.lines().all().join("\n")
            );
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        self.messages()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A message as a mail server has stored it: with lines that end in LF, below trace fields of its own.
#[derive(Clone)]
pub struct Stored {
    brand: Brand,
    content: Vec<u8>,
}

// === impl Stored ===

impl Stored {
    /// Who it was for, by the trace fields.
    #[track_caller]
    pub fn recipient(&self) -> String {
        let wanted: &[u8] = match self.brand {
            Brand::Postfix | Brand::OpenSmtpd => b"delivered-to:",
            Brand::Exim => b"envelope-to:",
        };
        let field =
            fields(&self.content).find(|field| field.to_ascii_lowercase().starts_with(wanted)).unwrap();
        String::from_utf8_lossy(&field[wanted.len()..]).trim().to_owned()
    }

    pub fn with_trace(&self) -> &[u8] {
        &self.content
    }

    /// Without the fields that this server put on top when it took the message and when it stored it.
    pub fn without_trace(&self) -> &[u8] {
        let mut rest = self.content.as_slice();
        let (names, from): (&[&str], &str) = match self.brand {
            Brand::Postfix => {
                (&["return-path:", "x-original-to:", "delivered-to:"], "by mailbox.example.org")
            }
            Brand::Exim => (&["return-path:", "envelope-to:", "delivery-date:"], "by mailbox.example.org"),
            Brand::OpenSmtpd => (&["return-path:", "delivered-to:"], "by mailbox.example.org"),
        };
        // Each once: whatever comes again is the message's own.
        let mut left: Vec<&str> = names.iter().copied().chain(["received:"]).collect();
        while let Some(field) = fields(rest).next() {
            let lower = String::from_utf8_lossy(field).to_ascii_lowercase();
            let Some(at) = left.iter().position(|name| lower.starts_with(name)) else { break };
            if left[at] == "received:" && !lower.contains(from) {
                break;
            }
            left.remove(at);
            rest = &rest[field.len()..];
        }
        rest
    }
}

/// The header fields of a message, each with its line ends.
fn fields(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() || rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return None;
        }
        let mut end = 0;
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            if end > 0 && !matches!(line.first(), Some(b' ' | b'\t')) {
                break;
            }
            end += line.len();
        }
        let (field, after) = rest.split_at(end);
        rest = after;
        Some(field)
    })
}
