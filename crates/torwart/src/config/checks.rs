//! What checks ask, and where their keys are.

use std::net::SocketAddr;
use std::path::PathBuf;

use torwart_verdict::CheckOptions;
use torwart_verdict::dns::{NameServers, Resolver};

use super::reader::Reader;
use crate::cli::{CheckArgs, DnsArgs};

/// Everything about checks that a process was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChecksConfig {
    /// Empty: the system's.
    pub(crate) dns_servers: Vec<SocketAddr>,
    pub(crate) secrets: Option<PathBuf>,
}

/// Everything `torwart check` was told, checked.
#[derive(Debug)]
pub(crate) struct CheckConfig {
    pub(crate) policy: Vec<PathBuf>,
    pub(crate) dns_servers: Vec<SocketAddr>,
}

// === impl Reader ===

impl Reader {
    pub(super) fn checks(&mut self, arguments: &DnsArgs) -> ChecksConfig {
        let secrets = self.once("--secrets-dir", &arguments.secrets_dir).cloned();
        if let Some(Err(error)) = secrets.as_ref().map(|folder| folder.read_dir()) {
            let folder = secrets.as_deref().map(|folder| folder.display().to_string()).unwrap_or_default();
            self.mistake("--secrets-dir", format!("{folder} can't be read: {error}"));
        }
        ChecksConfig { dns_servers: self.dns_servers(&arguments.dns_server), secrets }
    }

    pub(super) fn check(&mut self, arguments: &CheckArgs) -> CheckConfig {
        CheckConfig {
            policy: self.policy(&arguments.policy),
            dns_servers: self.dns_servers(&arguments.dns_server),
        }
    }

    fn dns_servers(&mut self, servers: &[String]) -> Vec<SocketAddr> {
        self.each("--dns-server", servers, NameServers::parse_one)
    }
}

// === impl ChecksConfig ===

impl ChecksConfig {
    /// Without a usable server checks come to no result, which keeps no mail waiting; the error says so.
    pub(crate) fn options(self) -> (CheckOptions, Option<String>) {
        let Self { dns_servers, secrets } = self;
        let resolver = NameServers::choose(&dns_servers).and_then(|servers| Resolver::new(&servers));
        match resolver {
            Ok(resolver) => (CheckOptions { resolver, secrets }, None),
            Err(error) => (CheckOptions { resolver: Resolver::without_servers(), secrets }, Some(error)),
        }
    }
}
