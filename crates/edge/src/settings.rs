//! What the process was told: every knob of the edge, with its default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use torwart_smtp::{BareNewline, Limits, SessionConfig};

use crate::spool::SpoolSettings;
use crate::upstream::UpstreamSettings;

/// Everything that [`crate::Edge::bind`] needs to know. [`Settings::default`] holds the documented defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--smtp-listen`: where to listen; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// `--smtp-listen-direct`: the same, where no peer brings a PROXY header, whatever `proxy_protocol_from` says.
    pub listen_direct: Vec<SocketAddr>,
    /// `--hostname`: said in the banner and in Received. [`crate::Edge::set_hostname`] changes it later.
    pub hostname: Arc<str>,
    /// `--tls-cert` and `--tls-key`, in pairs. Without any, STARTTLS is not offered.
    pub certificates: Vec<CertificateFiles>,
    /// `--proxy-protocol-from`: peers that must send a PROXY header at `listen`; all others must not.
    pub proxy_protocol_from: Vec<IpNet>,
    /// `--bare-newline`.
    pub bare_newline: BareNewline,
    /// `--max-message-size`, in bytes; announced by SIZE.
    pub max_message_size: u64,
    /// `--max-connections`: clients at one time, in all.
    pub max_connections: usize,
    /// `--max-connections-per-network`: clients at one time from one /24 or /64.
    pub max_connections_per_network: usize,
    /// `--drain-delay`: how long connections are still accepted after the order to stop.
    pub drain_delay: Duration,
    /// `--drain-timeout`: how long after that a transaction may still take whose dot has not gone upstream.
    pub drain_timeout: Duration,
    /// `--trace-sample-ratio`: the share of sessions that are traced, 0 to 1. `None` where there is no collector: no
    /// span is built.
    pub trace_sample_ratio: Option<f64>,
    /// The limits of one session. `message_size` is overridden by `max_message_size`.
    pub limits: Limits,
    pub upstream: UpstreamSettings,
    /// `--spool-dir`, `--spool-memory` and `--spool-max`.
    pub spool: SpoolSettings,
}

/// One `--tls-cert` with its `--tls-key`, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `--max-connections`: at 4 KiB each, less than 100 MiB.
const DEFAULT_CONNECTIONS: usize = 20_000;
/// `--max-connections-per-network`: what postfix allows a client (`smtpd_client_connection_count_limit`, 50), twice,
/// since a network is more than one client.
const DEFAULT_CONNECTIONS_PER_NETWORK: usize = 100;

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 2525))],
            listen_direct: Vec::new(),
            hostname: Arc::from("localhost"),
            certificates: Vec::new(),
            proxy_protocol_from: Vec::new(),
            bare_newline: BareNewline::Reject,
            max_message_size: limits.message_size,
            max_connections: DEFAULT_CONNECTIONS,
            max_connections_per_network: DEFAULT_CONNECTIONS_PER_NETWORK,
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(60),
            trace_sample_ratio: None,
            limits,
            upstream: UpstreamSettings::default(),
            spool: SpoolSettings::default(),
        }
    }
}

// === impl Settings ===

impl Settings {
    pub(crate) fn session_config(&self) -> SessionConfig {
        SessionConfig {
            hostname: Arc::clone(&self.hostname),
            limits: Limits { message_size: self.max_message_size, ..self.limits.clone() },
            bare_newline: self.bare_newline,
        }
    }
}
