//! `grpc.health.v1`: what probes and balancers hear.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};
use torwart_proto::v1::status_service_server::StatusServiceServer;
use torwart_proto::v1::verdict_service_server::VerdictServiceServer;

use super::status::StatusApi;
use super::verdict::VerdictApi;
use crate::engine::PolicyStatus;

/// The whole server (the empty name) and VerdictService serve once a policy is loaded; StatusService answers before
/// that too. No dependency affects them.
#[derive(Debug)]
pub(super) struct Health(HealthReporter);

const WHOLE: &str = "";
const VERDICT: &str = <VerdictServiceServer<VerdictApi> as NamedService>::NAME;
const STATUS: &str = <StatusServiceServer<StatusApi> as NamedService>::NAME;

// === impl Health ===

impl Health {
    pub(super) async fn new() -> (Self, HealthServer<impl HealthApi>) {
        let (reporter, service) = health_reporter();
        reporter.set_service_status(WHOLE, ServingStatus::NotServing).await;
        reporter.set_service_status(VERDICT, ServingStatus::NotServing).await;
        reporter.set_service_status(STATUS, ServingStatus::Serving).await;
        (Self(reporter), service)
    }

    /// Keeps step with the policy until `shutdown`, then nothing serves any more.
    pub(super) async fn follow(
        &self,
        mut policy: watch::Receiver<Option<PolicyStatus>>,
        shutdown: &CancellationToken,
    ) {
        let serving = async {
            // An error is the engine's end: then there is nothing to serve.
            if policy.wait_for(Option::is_some).await.is_ok() {
                self.0.set_service_status(WHOLE, ServingStatus::Serving).await;
                self.0.set_service_status(VERDICT, ServingStatus::Serving).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = serving => {}
        }
        for service in [WHOLE, VERDICT, STATUS] {
            self.0.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Ends the streams of those who watch: they would hold their connections open.
    pub(super) async fn end_watches(&mut self) {
        for service in [WHOLE, VERDICT, STATUS] {
            self.0.clear_service_status(service).await;
        }
    }
}
