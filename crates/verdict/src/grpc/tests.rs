//! A real client against the server.

mod calls;
mod drain;
mod limits;
mod messages;
mod probes;
mod proxy;
mod raw;
mod tls;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use torwart_core::{ConnectionQuestion, DeliveryResult, RecipientsQuestion};
use torwart_proto::channel::{ChannelSettings, connect, is_not_done};
use torwart_proto::v1;
use torwart_proto::v1::status_service_client::StatusServiceClient;
use torwart_proto::v1::verdict_service_client::VerdictServiceClient;

use super::*;
use crate::clock::ManualClock;
use crate::engine::{MessageLimits, Options};
use crate::store::{MemoryStore, Store};
use crate::testing::*;

struct Setup {
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    registry: Registry,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// A server with a policy, its store in memory.
async fn start() -> Setup {
    start_with(None, |_| {}).await
}

/// The store is `store`, or else in memory.
async fn start_with(store: Option<Arc<dyn Store>>, change: impl FnOnce(&mut GrpcSettings)) -> Setup {
    let setup = start_without_policy(store, change).await;
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    setup
}

/// Nothing is waited for at the end; the store may take longer than any test.
async fn start_without_policy(
    store: Option<Arc<dyn Store>>,
    change: impl FnOnce(&mut GrpcSettings),
) -> Setup {
    start_unready(store, MessageLimits::default(), change).await
}

async fn start_unready(
    store: Option<Arc<dyn Store>>,
    messages: MessageLimits,
    change: impl FnOnce(&mut GrpcSettings),
) -> Setup {
    let clock = Arc::new(ManualClock::new(START));
    let registry = Registry::new();
    let options = Options {
        store: store.unwrap_or_else(|| Arc::new(MemoryStore::new(100_000, clock.clone()))),
        clock: clock.clone(),
        key_files: Vec::new(),
        store_timeout: 10 * PATIENCE,
        own_addresses: Vec::new(),
        messages,
        checks: crate::CheckOptions::default(),
    };
    let engine = Arc::new(Engine::start(options, &registry).await.unwrap());
    let mut settings = GrpcSettings::new(([127, 0, 0, 1], 0).into());
    settings.drain_delay = Duration::ZERO;
    settings.drain_timeout = PATIENCE;
    settings.call_limit = 10 * PATIENCE;
    change(&mut settings);
    let server = GrpcServer::bind(settings, Arc::clone(&engine), &registry).await.unwrap();
    let address = server.local_addr();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    Setup { engine, clock, registry, address, shutdown, serving }
}

impl Setup {
    /// A connection of its own.
    fn channel(&self) -> Channel {
        connect(self.address, None, &ChannelSettings::default())
    }

    fn verdict(&self) -> VerdictServiceClient<Channel> {
        VerdictServiceClient::new(self.channel())
    }

    fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.channel())
    }

    fn metric(&self, series: &str) -> u64 {
        metric(&self.registry, series).unwrap().parse().unwrap()
    }

    fn calls_refused(&self, why: &str) -> u64 {
        self.metric(&format!("torwart_verdict_calls_refused_total{{why=\"{why}\"}}"))
    }

    fn connections_refused(&self, why: &str) -> u64 {
        self.metric(&format!("torwart_verdict_connections_refused_total{{why=\"{why}\"}}"))
    }

    /// Questions that the engine is answering.
    fn in_flight(&self) -> u64 {
        self.metric("torwart_verdict_calls_in_flight")
    }

    fn connections(&self) -> u64 {
        self.metric("torwart_verdict_connections")
    }

    /// The order to stop, and what it comes to.
    async fn stop(self) {
        self.shutdown.cancel();
        patiently(self.serving).await.unwrap();
    }
}

fn recipients_request(client: &str, recipients: &[&str]) -> v1::CheckRecipientsRequest {
    (&mk_question(client, ANNA, recipients)).into()
}

fn connection_request(client: &str) -> v1::CheckConnectionRequest {
    (&ConnectionQuestion { peer: mk_peer(client) }).into()
}

fn report_request(result: DeliveryResult) -> v1::ReportOutcomeRequest {
    (&mk_delivery(CLIENT, ANNA, &[BOB], result)).into()
}

fn route_request(n: u8) -> v1::GetRouteRequest {
    v1::GetRouteRequest { digest: vec![n; 16] }
}
