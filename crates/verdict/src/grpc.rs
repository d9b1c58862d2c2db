//! The verdict as a gRPC server: `torwart.verdict.v1`, health and reflection on one port.
//!
//! ```text
//!   accept --(room?)--> handshake --> HTTP/2 --> Gate: room for a call? time limit
//!   connections                                    |-- VerdictService   --> Engine
//!                                                  |-- StatusService    --> Engine::status
//!                                                  '-- health, reflection
//! ```
//!
//! A call that was refused before anything was done is marked so (see [`torwart_proto::channel::NOT_DONE`]): no policy
//! is loaded yet, or too many calls are under way.
//!
//! Going down: health says NOT_SERVING at once; calls are served as before for [`GrpcSettings::drain_delay`], while
//! edges learn of other replicas; then the port is closed and every connection gets a GOAWAY. A call that came before
//! it is answered, one that came after it was never begun, and its client knows that. What is not finished after
//! [`GrpcSettings::drain_timeout`] is cut.

mod connections;
mod gate;
mod health;
mod incoming;
mod metrics;
mod status;
mod verdict;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use torwart_proto::tls::ServerTls;
use torwart_proto::v1::status_service_server::StatusServiceServer;
use torwart_proto::v1::verdict_service_server::VerdictServiceServer;

use self::connections::{Connections, Limits};
use self::gate::{Gate, Rooms};
use self::health::Health;
use self::metrics::GrpcMetrics;
use self::status::StatusApi;
use self::verdict::{MessageTimes, VerdictApi};
use crate::engine::Engine;

/// How the server listens and what it bears.
#[derive(Clone, Debug)]
pub struct GrpcSettings {
    /// `--grpc-listen`.
    pub listen: SocketAddr,
    /// `None`: clear text, whoever can connect is served.
    pub tls: Option<Arc<ServerTls>>,
    /// Calls of VerdictService under way at once; one more is refused.
    pub max_calls: usize,
    /// Connections held at once, those in their handshake included; one more is closed at once.
    pub max_connections: usize,
    /// From a connection's handshake to its client's first words; who is silent for longer is no gRPC client.
    pub silence_limit: Duration,
    /// No call takes longer, whatever its client would bear; but for messages.
    pub call_limit: Duration,
    /// Messages under way at once; one more is refused. They are not among `max_calls`: each lasts as long as its sender
    /// takes.
    pub max_messages: usize,
    /// No message takes longer, from its first part to the answer.
    pub message_limit: Duration,
    /// From one part of a message to the next.
    pub message_silence: Duration,
    /// From a message's end to the answer.
    pub message_answer: Duration,
    /// After that a connection gets a GOAWAY and its client makes a new one, give or take a tenth.
    pub max_connection_age: Duration,
    /// From the order to stop to the GOAWAY.
    pub drain_delay: Duration,
    /// From the GOAWAY to the end of what is not finished.
    pub drain_timeout: Duration,
}

/// A port that is bound; [`GrpcServer::serve`] serves it.
#[derive(Debug)]
pub struct GrpcServer {
    listener: TcpListener,
    address: SocketAddr,
    connections: Arc<Connections>,
    health: Health,
    engine: Arc<Engine>,
    drain_delay: Duration,
    drain_timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    #[error("--grpc-listen {address}: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A healthy engine answers in some milliseconds, so that so many calls at once are more than any number of edges
/// needs; with a store that hangs (100 ms a call) they are 40,000 calls a second, more than a process can judge.
/// Whoever came on top would only wait in vain.
pub const DEFAULT_MAX_CALLS: usize = 4096;

/// An edge holds one connection to each verdict; operator, probes and people few more.
pub const DEFAULT_MAX_CONNECTIONS: usize = 1024;

/// gRPC clients connect when they have something to say, and say it at once.
pub const DEFAULT_SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// Twice what an edge waits for an answer: whoever asked has given up.
pub const DEFAULT_CALL_LIMIT: Duration = Duration::from_secs(10);

/// As many as calls. Each takes some KiB beside what `--message-memory` bounds.
pub const DEFAULT_MAX_MESSAGES: usize = 4096;

/// An edge gives a sender an hour for a message.
pub const DEFAULT_MESSAGE_LIMIT: Duration = Duration::from_secs(75 * 60);

/// An edge waits 3 min for the next piece of a message.
pub const DEFAULT_MESSAGE_SILENCE: Duration = Duration::from_secs(5 * 60);

/// A little longer than an edge waits.
pub const DEFAULT_MESSAGE_ANSWER: Duration = Duration::from_secs(190);

/// A client whose certificate has run out, or whose name is no longer let in, is asked for it again within so long.
pub const DEFAULT_MAX_CONNECTION_AGE: Duration = Duration::from_secs(3600);

/// Edges resolve the verdict's name every 5 s.
pub const DEFAULT_DRAIN_DELAY: Duration = Duration::from_secs(5);

/// The longest call, and time for its answer.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// What is cut has closed its sockets after so long.
const CUT_LIMIT: Duration = Duration::from_secs(1);

/// Longest message in bytes. A question about 1000 recipients has 0.4 MB at most.
const LONGEST_MESSAGE: usize = 512 * 1024;

// === impl GrpcSettings ===

impl GrpcSettings {
    /// Clear text, and the default limits.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            max_calls: DEFAULT_MAX_CALLS,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            silence_limit: DEFAULT_SILENCE_LIMIT,
            call_limit: DEFAULT_CALL_LIMIT,
            max_messages: DEFAULT_MAX_MESSAGES,
            message_limit: DEFAULT_MESSAGE_LIMIT,
            message_silence: DEFAULT_MESSAGE_SILENCE,
            message_answer: DEFAULT_MESSAGE_ANSWER,
            max_connection_age: DEFAULT_MAX_CONNECTION_AGE,
            drain_delay: DEFAULT_DRAIN_DELAY,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
        }
    }
}

// === impl GrpcServer ===

impl GrpcServer {
    /// Binds the port and registers metrics. Connections wait in the system's queue until [`GrpcServer::serve`].
    ///
    /// # Errors
    /// If the port can't be bound, or a metric's name is taken in `registry`.
    pub async fn bind(
        settings: GrpcSettings,
        engine: Arc<Engine>,
        registry: &Registry,
    ) -> Result<Self, GrpcError> {
        let GrpcSettings {
            listen,
            tls,
            max_calls,
            max_connections,
            silence_limit,
            call_limit,
            max_messages,
            message_limit,
            message_silence,
            message_answer,
            max_connection_age,
            drain_delay,
            drain_timeout,
        } = settings;
        let metrics = Arc::new(GrpcMetrics::new(registry)?);
        let (health, health_service) = Health::new().await;
        let times = MessageTimes { silence: message_silence, answer: message_answer };
        let api = VerdictApi::new(Arc::clone(&engine), Arc::clone(&metrics), times);
        let verdict = VerdictServiceServer::new(api).max_decoding_message_size(LONGEST_MESSAGE);
        let status = StatusServiceServer::new(StatusApi::new(Arc::clone(&engine)))
            .max_decoding_message_size(LONGEST_MESSAGE);
        let others = Routes::new(status)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            // Of older clients.
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        let rooms = Rooms { max_calls, call_limit, max_messages, message_limit };
        let gate = Gate::new(verdict, others, rooms, Arc::clone(&metrics));
        let limits = Limits {
            max_connections,
            max_calls: max_calls.saturating_add(max_messages),
            silence_limit,
            max_age: max_connection_age,
            call_limit: call_limit.max(message_limit),
        };
        let bind_error = |error| GrpcError::Bind { address: listen, error };
        let listener = TcpListener::bind(listen).await.map_err(bind_error)?;
        Ok(Self {
            address: listener.local_addr().map_err(bind_error)?,
            listener,
            connections: Arc::new(Connections::new(gate, tls, limits, metrics)),
            health,
            engine,
            drain_delay,
            drain_timeout,
        })
    }

    /// The address with the port that was chosen, if it was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then drains. Takes `drain_delay`, `drain_timeout` and a second at most from then on.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { listener, address: _, connections, mut health, engine, drain_delay, drain_timeout } = self;
        // Whatever ends this, no connection outlives it.
        let _cut = connections.cut.clone().drop_guard();
        let before_goaway = async {
            health.follow(engine.watch_policy(), &shutdown).await;
            tokio::time::sleep(drain_delay).await;
        };
        tokio::select! {
            () = before_goaway => {}
            () = connections.accept(&listener) => {}
        }
        // In this order: a client that hears GOAWAY connects again at once.
        connections.close(listener);
        connections.goaway.cancel();
        health.end_watches().await;
        connections.tasks.close();
        if tokio::time::timeout(drain_timeout, connections.tasks.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(
            connections = connections.tasks.len(),
            "gRPC connections are cut: their calls did not end within the drain's time limit"
        );
        connections.cut.cancel();
        // They have been told; the process ends anyway.
        let _ = tokio::time::timeout(CUT_LIMIT, connections.tasks.wait()).await;
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(torwart_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
