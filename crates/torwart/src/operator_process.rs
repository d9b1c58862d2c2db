//! `torwart operator` as a process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use torwart_operator::{Operator, Settings};
use torwart_proto::tls::ClientTls;

use crate::admin::Admin;
use crate::config::OperatorConfig;
use crate::process::{AdminPort, RunningAdmin, Service, StartError};
use crate::tls_watch::TlsWatch;

/// A running `torwart operator`.
pub(crate) struct OperatorProcess {
    work: JoinHandle<()>,
    tls: TlsWatch,
    admin: RunningAdmin,
    serving: Arc<Admin>,
    shutdown: CancellationToken,
}

impl OperatorProcess {
    /// Watches, whether the API server is there or not. It is ready once it knows everything there.
    pub(crate) async fn start(config: OperatorConfig, registry: Registry) -> Result<Self, StartError> {
        let OperatorConfig { namespace, gateway, verdict_selector, tls, server_name, admin_listen, log: _ } =
            config;
        let tls = tls.map(|files| ClientTls::load(files, &server_name)).transpose();
        let tls = tls.map_err(|errors| {
            let flags = "--verdict-ca/--verdict-cert/--verdict-key";
            StartError(errors.iter().map(|error| format!("{flags}: {error}")).collect())
        })?;
        let settings = Settings { namespace, gateway, verdict_selector, tls: tls.clone() };
        let (namespace, gateway) = (settings.namespace.clone(), settings.gateway.clone());
        let operator = Operator::start(settings, &registry).await?;
        let port = AdminPort::bind(admin_listen).await?;
        let admin = Arc::new(Admin::without_policy(registry));
        let ready = operator.becomes_ready();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let process = Self {
            work: tokio::spawn(async move { Box::pin(operator.run(stop.cancelled())).await }),
            tls: TlsWatch::start(tls.map(|tls| move || tls.reload())),
            admin: port.serve(Arc::clone(&admin))?,
            serving: Arc::clone(&admin),
            shutdown,
        };
        let address = process.admin.address;
        tracing::info!(namespace, gateway, admin = %address, "listening");
        tokio::spawn(async move {
            if !ready.await {
                return;
            }
            admin.serving.store(true, Ordering::Relaxed);
            tracing::info!(namespace, gateway, admin = %address, "ready");
        });
        Ok(process)
    }
}

impl Service for OperatorProcess {
    fn reload(&self) {
        self.tls.reload();
    }

    async fn stop(self) {
        self.serving.serving.store(false, Ordering::Relaxed);
        self.shutdown.cancel();
        if self.work.await.is_err() {
            tracing::error!("the operator failed");
        }
        drop(self.admin);
    }
}
