//! The flags of whoever takes mail: `run` and `edge`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use torwart_edge::{BareNewline, CertificateFiles, SpoolSettings, check_certificates};

use super::reader::Reader;
use super::values::{address, host_name, network, overlap, size};
use crate::cli::{DrainArgs, EdgeAdminArgs, EdgeArgs};

#[derive(Debug)]
pub(crate) struct EdgeConfig {
    pub(crate) smtp_listen: Vec<SocketAddr>,
    pub(crate) smtp_listen_direct: Vec<SocketAddr>,
    pub(crate) admin_listen: SocketAddr,
    /// `None`: the MailGateway's (`run`), or the machine's (`edge`).
    pub(crate) hostname: Option<Arc<str>>,
    pub(crate) certificates: Vec<CertificateFiles>,
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    pub(crate) bare_newline: BareNewline,
    pub(crate) max_message_size: u64,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_network: usize,
    pub(crate) spool: SpoolSettings,
    pub(crate) drain: DrainConfig,
}

/// How a process goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainConfig {
    pub(crate) delay: Duration,
    pub(crate) timeout: Duration,
}

/// A message smaller than this can't be told apart from none.
const SMALLEST_MESSAGE_LIMIT: u64 = 1024;
/// Longer than any rollout; a typing slip (`60m` for `60s`) is likelier than the wish.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

// === impl EdgeConfig ===

impl EdgeConfig {
    /// Wherever mail is taken.
    pub(crate) fn smtp_addresses(&self) -> Vec<SocketAddr> {
        [&*self.smtp_listen, &*self.smtp_listen_direct].concat()
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn edge(
        &mut self,
        arguments: &EdgeArgs,
        admin: &EdgeAdminArgs,
        drain: &DrainArgs,
    ) -> EdgeConfig {
        let smtp_listen = self.each("--smtp-listen", &arguments.smtp_listen, address);
        let admin_listen = self.parsed("--admin-listen", &admin.admin_listen, address);
        let smtp_listen_direct = self.each("--smtp-listen-direct", &arguments.smtp_listen_direct, address);
        self.listen_conflicts("--smtp-listen", &smtp_listen);
        self.listen_conflicts("--smtp-listen-direct", &smtp_listen_direct);
        for address in &smtp_listen_direct {
            self.free_of("--smtp-listen-direct", Some(*address), &smtp_listen, "--smtp-listen");
        }
        self.free_of("--admin-listen", admin_listen, &smtp_listen, "--smtp-listen");
        self.free_of("--admin-listen", admin_listen, &smtp_listen_direct, "--smtp-listen-direct");
        let max_connections = self.count("--max-connections", &arguments.max_connections);
        let per_network = self.count("--max-connections-per-network", &arguments.max_connections_per_network);
        if let (Some(all), Some(network)) = (max_connections, per_network)
            && network > all
        {
            let text = format!("{network} is more than --max-connections {all}");
            self.mistake("--max-connections-per-network", text);
        }
        let max_message_size = self.message_size(&arguments.max_message_size);
        let newlines = [("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)];
        EdgeConfig {
            smtp_listen,
            smtp_listen_direct,
            admin_listen: admin_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            hostname: self.parsed("--hostname", &arguments.hostname, host_name),
            certificates: self.certificates(&arguments.tls_cert, &arguments.tls_key),
            proxy_protocol_from: self.each("--proxy-protocol-from", &arguments.proxy_protocol_from, network),
            bare_newline: self.one_of(
                "--bare-newline",
                &arguments.bare_newline,
                &newlines,
                BareNewline::Reject,
            ),
            max_message_size,
            max_connections: max_connections.unwrap_or(1),
            max_connections_per_network: per_network.unwrap_or(1),
            spool: self.spool(arguments, max_message_size),
            drain: self.drain(drain),
        }
    }

    pub(super) fn drain(&mut self, arguments: &DrainArgs) -> DrainConfig {
        let no_time = Duration::ZERO;
        DrainConfig {
            delay: self.within("--drain-delay", &arguments.drain_delay, no_time, LONGEST_DRAIN),
            timeout: self.within("--drain-timeout", &arguments.drain_timeout, no_time, LONGEST_DRAIN),
        }
    }

    fn message_size(&mut self, values: &[String]) -> u64 {
        let parse = |value: &str| match size(value)? {
            bytes if bytes < SMALLEST_MESSAGE_LIMIT => {
                Err(format!("is less than {SMALLEST_MESSAGE_LIMIT} bytes"))
            }
            bytes => Ok(bytes),
        };
        self.parsed("--max-message-size", values, parse).unwrap_or(SMALLEST_MESSAGE_LIMIT)
    }

    fn certificates(&mut self, certificates: &[PathBuf], keys: &[PathBuf]) -> Vec<CertificateFiles> {
        if certificates.len() != keys.len() {
            let (flag, other) = if certificates.len() > keys.len() {
                ("--tls-cert", "--tls-key")
            } else {
                ("--tls-key", "--tls-cert")
            };
            let (more, fewer) = (certificates.len().max(keys.len()), certificates.len().min(keys.len()));
            self.mistake(
                flag,
                format!("is given {more} times, but {other} {fewer} times; they come in pairs"),
            );
        }
        let pair = |(certificate, key): (&PathBuf, &PathBuf)| CertificateFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let pairs: Vec<CertificateFiles> = certificates.iter().zip(keys).map(pair).collect();
        for error in check_certificates(&pairs) {
            self.mistake("--tls-cert/--tls-key", error.to_string());
        }
        pairs
    }

    fn listen_conflicts(&mut self, flag: &'static str, smtp: &[SocketAddr]) {
        for (i, address) in smtp.iter().enumerate() {
            if let Some(other) = smtp.iter().skip(i + 1).find(|other| overlap(*address, **other)) {
                self.mistake(flag, format!("{address} and {other} can't be listened on both"));
            }
        }
    }
}
