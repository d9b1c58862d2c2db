//! `torwart edge` and `torwart verdict`: the two halves as processes of their own.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use torwart_core::Verdicts;
use torwart_edge::{ClientSettings, VerdictClient};
use torwart_proto::tls::{ClientTls, ServerTls, ServerTlsFiles, TlsFileError};
use torwart_verdict::{GrpcServer, GrpcSettings, MessageLimits, StoreSpec};

use crate::admin::Admin;
use crate::config::{AskConfig, ChecksConfig, EdgeConfig, ServiceConfig, StoreConfig};
use crate::edge_half::{BoundEdge, RunningEdge, Telling};
use crate::hostname;
use crate::own_addresses::own_addresses;
use crate::process::{AdminPort, RunningAdmin, Service, StartError, both};
use crate::tls_watch::TlsWatch;
use crate::verdict_half::{PolicySource, PolicyTask, VerdictHalf, VerdictOptions};

/// A running `torwart edge`.
pub(crate) struct EdgeProcess {
    edge: RunningEdge,
    tls: TlsWatch,
    admin: RunningAdmin,
}

/// A running `torwart verdict`.
pub(crate) struct VerdictProcess {
    server: JoinHandle<()>,
    policy: PolicyTask,
    tls: TlsWatch,
    admin: RunningAdmin,
    serving: Arc<Admin>,
    /// Begins the drain.
    shutdown: CancellationToken,
    drain_delay: Duration,
}

/// Who can ask the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Safety {
    /// Whoever can connect, and others can read along.
    Clear,
    /// Whoever can connect.
    Encrypted,
    /// Whoever has a certificate.
    Authenticated,
}

// === impl EdgeProcess ===

impl EdgeProcess {
    /// Binds every port and serves, whether a verdict is there or not. `log` takes the mail log.
    pub(crate) async fn start(
        ask: AskConfig,
        config: EdgeConfig,
        telling: Telling,
        registry: Registry,
        log: impl Write + Send + 'static,
    ) -> Result<Self, StartError> {
        let AskConfig { urls, tls, server_name } = ask;
        let tls = tls.map(|files| ClientTls::load(files, &server_name)).transpose();
        let tls = tls.map_err(|errors| bad_files("--verdict-ca/--verdict-cert/--verdict-key", &errors))?;
        let settings = ClientSettings { tls: tls.clone(), ..ClientSettings::new(urls) };
        let verdicts = VerdictClient::start(settings, &registry)? as Arc<dyn Verdicts>;
        let hostname = config.hostname.clone().unwrap_or_else(hostname::of_this_machine);
        let edge = BoundEdge::bind(&config, hostname, verdicts, telling, log, &registry);
        let (edge, port) = both(edge, AdminPort::bind(config.admin_listen).await)?;
        let admin = Arc::new(Admin::without_policy(registry));
        let process = Self {
            edge: edge.serve(Arc::clone(&admin)),
            tls: TlsWatch::start(tls.map(|tls| move || tls.reload())),
            admin: port.serve(admin)?,
        };
        let smtp: Vec<String> = process.edge.addresses().iter().map(ToString::to_string).collect();
        tracing::info!(smtp = smtp.join(","), admin = %process.admin.address, "ready");
        Ok(process)
    }
}

impl Service for EdgeProcess {
    fn reload(&self) {
        self.edge.reload();
        self.tls.reload();
    }

    async fn stop(self) {
        let last_lines = self.edge.stop().await;
        drop(self.admin);
        last_lines.write().await;
    }
}

// === impl VerdictProcess ===

impl VerdictProcess {
    /// Opens the store, binds every port and serves. Without a usable policy it serves, too, but is not ready: every
    /// question is refused, which the edge tells with 451, until there is one.
    pub(crate) async fn start(
        policy: PolicySource,
        store: StoreConfig,
        messages: MessageLimits,
        checks: ChecksConfig,
        config: ServiceConfig,
        registry: Registry,
    ) -> Result<Self, StartError> {
        let ServiceConfig { grpc_listen, admin_listen, tls, client_names, drain } = config;
        let safety = Safety::of(tls.as_ref());
        let tls = tls.map(|files| ServerTls::load(files, client_names)).transpose();
        let tls = tls.map_err(|errors| bad_files("--grpc-cert/--grpc-key/--grpc-client-ca", &errors))?;
        for warning in warnings(&store.spec, grpc_listen, safety) {
            tracing::warn!("{warning}");
        }
        let admin = Arc::new(Admin::with_policy(registry.clone()));
        // Where mail is taken is not known here, but this may be the same machine.
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let options = VerdictOptions {
            policy,
            store,
            messages,
            checks,
            smtp_listen: Vec::new(),
            own_addresses: own_addresses(&[everywhere]),
        };
        let half = Box::pin(VerdictHalf::start(options, true, &registry)).await?;
        let engine = Arc::clone(half.engine());
        let settings = GrpcSettings {
            tls: tls.clone(),
            drain_delay: drain.delay,
            drain_timeout: drain.timeout,
            ..GrpcSettings::new(grpc_listen)
        };
        let server = GrpcServer::bind(settings, Arc::clone(&engine), &registry).await;
        let (server, port) = both(server.map_err(StartError::from), AdminPort::bind(admin_listen).await)?;

        let policy = Box::pin(half.serve(Arc::clone(&admin), None)).await?;
        let grpc = server.local_addr();
        let shutdown = CancellationToken::new();
        let process = Self {
            server: tokio::spawn(server.serve(shutdown.clone())),
            policy,
            tls: TlsWatch::start(tls.map(|tls| move || tls.reload())),
            admin: port.serve(Arc::clone(&admin))?,
            serving: Arc::clone(&admin),
            shutdown,
            drain_delay: drain.delay,
        };
        admin.serving.store(true, Ordering::Relaxed);
        let address = process.admin.address;
        tracing::info!(%grpc, admin = %address, "listening");
        let mut policies = engine.watch_policy();
        tokio::spawn(async move {
            if policies.wait_for(Option::is_some).await.is_ok() {
                tracing::info!(%grpc, admin = %address, "ready");
            }
        });
        Ok(process)
    }
}

impl Service for VerdictProcess {
    fn reload(&self) {
        self.policy.reload();
        self.tls.reload();
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let not_ready = async {
            tokio::time::sleep(self.drain_delay).await;
            self.serving.serving.store(false, Ordering::Relaxed);
        };
        if tokio::join!(self.server, not_ready).0.is_err() {
            tracing::error!("the gRPC server failed");
        }
        drop(self.admin);
        self.policy.stop().await;
    }
}

fn bad_files(flags: &str, errors: &[TlsFileError]) -> StartError {
    StartError(errors.iter().map(|error| format!("{flags}: {error}")).collect())
}

// === impl Safety ===

impl Safety {
    fn of(tls: Option<&ServerTlsFiles>) -> Self {
        match tls {
            None => Self::Clear,
            Some(files) if files.client_ca.is_none() => Self::Encrypted,
            Some(_) => Self::Authenticated,
        }
    }
}

/// What is allowed, but seldom meant.
fn warnings(store: &StoreSpec, listen: SocketAddr, safety: Safety) -> Vec<String> {
    let mut warnings = Vec::new();
    if *store == StoreSpec::Memory {
        let text = "--store memory: a restart forgets every sender, and other verdicts know nothing of them: with more \
                    than one, senders wait at each; use a redis URL";
        warnings.push(text.to_owned());
    }
    let ip: IpAddr = listen.ip().to_canonical();
    if ip.is_loopback() {
        return warnings;
    }
    let anybody = "whoever can connect can ask, and is believed what it reports: a forged delivery is a way past \
                   greylisting";
    match safety {
        Safety::Clear => warnings.push(format!(
            "--grpc-listen {listen} without --grpc-cert: others can read along, and {anybody}; use --grpc-cert, \
             --grpc-key and --grpc-client-ca, or see to it that only edges can connect"
        )),
        Safety::Encrypted => warnings.push(format!(
            "--grpc-listen {listen} without --grpc-client-ca: {anybody}; use --grpc-client-ca, or see to it that only \
             edges can connect"
        )),
        Safety::Authenticated => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_believes_anybody_is_warned_of_unless_only_this_machine_can_connect() {
        let store = StoreSpec::Redb("greylist.redb".into());
        for (listen, safety, wanted) in [
            ("0.0.0.0:9901", Safety::Clear, Some("without --grpc-cert:")),
            ("[::]:9901", Safety::Encrypted, Some("without --grpc-client-ca:")),
            ("0.0.0.0:9901", Safety::Authenticated, None),
            ("127.0.0.1:9901", Safety::Clear, None),
            ("[::1]:9901", Safety::Encrypted, None),
        ] {
            let told = warnings(&store, listen.parse().unwrap(), safety);
            assert_eq!(told.len(), usize::from(wanted.is_some()), "{listen} {safety:?}: {told:?}");
            for text in told {
                assert!(text.contains(wanted.unwrap()) && text.contains("a way past greylisting"), "{text}");
            }
        }
        assert_eq!(warnings(&StoreSpec::Memory, ([127, 0, 0, 1], 1).into(), Safety::Authenticated).len(), 1);
    }

    #[test]
    fn only_a_client_ca_keeps_others_out() {
        let files = |client_ca: Option<&str>| ServerTlsFiles {
            certificate: "cert.pem".into(),
            key: "key.pem".into(),
            client_ca: client_ca.map(Into::into),
        };
        assert_eq!(Safety::of(None), Safety::Clear);
        assert_eq!(Safety::of(Some(&files(None))), Safety::Encrypted);
        assert_eq!(Safety::of(Some(&files(Some("ca.pem")))), Safety::Authenticated);
    }
}
