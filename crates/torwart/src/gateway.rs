//! The gateway in one process: what `run` serves with and `demo` shows.
//!
//! ```text
//!   verdict half: Engine <- edge half: Edge (SMTP) -> upstreams
//!   admin port: Registry, readiness, policy view
//! ```

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use torwart_core::Verdicts;
use torwart_edge::{BareNewline, MailLogOptions, Settings};
use torwart_verdict::MessageLimits;

use crate::admin::Admin;
use crate::config::{ChecksConfig, DrainConfig, EdgeConfig, StoreConfig};
use crate::edge_half::{BoundEdge, RunningEdge, Telling};
use crate::own_addresses::own_addresses;
use crate::process::{AdminPort, RunningAdmin, Service, StartError, both};
use crate::verdict_half::{PolicySource, PolicyTask, VerdictHalf, VerdictOptions};

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) policy: PolicySource,
    pub(crate) store: StoreConfig,
    pub(crate) messages: MessageLimits,
    pub(crate) checks: ChecksConfig,
    pub(crate) edge: EdgeConfig,
    pub(crate) telling: Telling,
}

/// A running gateway. It serves until [`Service::stop`].
pub(crate) struct Gateway {
    edge: RunningEdge,
    policy: PolicyTask,
    admin: RunningAdmin,
}

// === impl Gateway ===

impl Gateway {
    /// Loads the policy, opens the store, binds every port and serves. `log` takes the mail log.
    pub(crate) async fn start(
        options: Options,
        registry: Registry,
        log: impl Write + Send + 'static,
    ) -> Result<Self, StartError> {
        let Options { policy, store, messages, checks, edge: config, telling } = options;
        let admin = Arc::new(Admin::with_policy(registry.clone()));
        let verdict = VerdictOptions {
            policy,
            store,
            messages,
            checks,
            own_addresses: own_addresses(&config.smtp_addresses()),
            smtp_listen: config.smtp_addresses(),
        };
        let verdict = Box::pin(VerdictHalf::start(verdict, false, &registry)).await?;
        let verdicts = Arc::clone(verdict.engine()) as Arc<dyn Verdicts>;
        let hostname = config.hostname.clone().or_else(|| verdict.hostname());
        let hostname = hostname.unwrap_or_else(|| Settings::default().hostname);
        let edge = BoundEdge::bind(&config, hostname, verdicts, telling, log, &registry);
        let (edge, port) = both(edge, AdminPort::bind(config.admin_listen).await)?;

        // Whoever connects is served, with the policy: so it is in force before.
        let by_gateway = config.hostname.is_none().then(|| Arc::clone(edge.edge()));
        let policy = Box::pin(verdict.serve(Arc::clone(&admin), by_gateway)).await?;
        let edge = edge.serve(Arc::clone(&admin));
        Ok(Self { edge, policy, admin: port.serve(admin)? })
    }

    pub(crate) fn smtp_addresses(&self) -> &[SocketAddr] {
        self.edge.addresses()
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }
}

impl Service for Gateway {
    fn reload(&self) {
        self.policy.reload();
        self.edge.reload();
    }

    async fn stop(self) {
        let last_lines = self.edge.stop().await;
        drop(self.admin);
        self.policy.stop().await;
        last_lines.write().await;
    }
}

// === impl Options ===

impl Options {
    /// Free ports of loopback, nothing kept, and no delay at the end.
    pub(crate) fn on_loopback(policy: PolicySource) -> Self {
        let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let defaults = Settings::default();
        Self {
            policy,
            store: StoreConfig::memory(),
            messages: MessageLimits::default(),
            checks: ChecksConfig::default(),
            edge: EdgeConfig {
                smtp_listen: vec![free_port],
                smtp_listen_direct: Vec::new(),
                admin_listen: free_port,
                hostname: None,
                certificates: Vec::new(),
                proxy_protocol_from: Vec::new(),
                bare_newline: BareNewline::Reject,
                max_message_size: defaults.max_message_size,
                max_connections: defaults.max_connections,
                max_connections_per_network: defaults.max_connections_per_network,
                spool: defaults.spool,
                drain: DrainConfig { delay: Duration::ZERO, timeout: Duration::ZERO },
            },
            telling: Telling { mail_log: MailLogOptions::default(), trace_sample_ratio: None },
        }
    }
}
