//! The admin port: plain HTTP for probes, Prometheus and people.
//!
//! | path | says |
//! |---|---|
//! | `/healthz` | 200: the process answers |
//! | `/readyz` | 200 while mail is taken or questions are answered; 503 before that (without a policy there is no answer) and once the listeners are closed. No dependency affects it |
//! | `/metrics` | Prometheus text |
//! | `/policy` | the policy in force: revision and names; to a client on loopback also the objects in full. 404 at an edge, which has none |
//!
//! One request per connection; a slow or silent client is cut off, and at most [`CONNECTIONS`] are served at once.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::{Registry, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Probes, Prometheus and a few people; whoever opens more waits.
const CONNECTIONS: usize = 64;
/// A request's header takes milliseconds from an honest client.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// From accept to the last byte of the answer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// Longest request header; probes and Prometheus send some hundred bytes.
const HEADER_BYTES: usize = 16 * 1024;
/// After a failed accept (no file descriptor left), the next one waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/policy` says.
#[derive(Debug)]
pub(crate) struct PolicyView {
    /// Revision and names.
    pub(crate) summary: serde_json::Value,
    /// The same and the accepted objects.
    pub(crate) full: serde_json::Value,
}

/// What the admin port shows; shared with those who change it.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) registry: Registry,
    /// What it listens for is taken.
    pub(crate) serving: AtomicBool,
    holds_policy: bool,
    pub(crate) policy: ArcSwapOption<PolicyView>,
}

/// The client's address, kept beside each request.
#[derive(Clone, Copy, Debug)]
struct Client(SocketAddr);

// === impl Admin ===

impl Admin {
    /// Of a process that answers by a policy: not serving, and still without one.
    pub(crate) fn with_policy(registry: Registry) -> Self {
        Self { holds_policy: true, ..Self::without_policy(registry) }
    }

    /// Of an edge: not serving.
    pub(crate) fn without_policy(registry: Registry) -> Self {
        Self {
            registry,
            serving: AtomicBool::new(false),
            holds_policy: false,
            policy: ArcSwapOption::empty(),
        }
    }

    fn is_ready(&self) -> bool {
        self.serving.load(Ordering::Relaxed) && (!self.holds_policy || self.policy.load().is_some())
    }
}

// === the server ===

/// Serves until `stop`. A failed accept is logged and tried again.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let router = router(admin);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, client, permit)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    // Neither a fault of the client nor the end of its time is worth a log line.
                    let _ = timeout(CONNECTION_LIMIT, answer(stream, client, router)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin port can't accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    Ok((stream, client, permit))
}

async fn answer(stream: TcpStream, client: SocketAddr, router: Router) -> Result<(), hyper::Error> {
    let service = TowerToHyperService::new(router.layer(Extension(Client(client))));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/policy", get(policy))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there are /healthz, /readyz, /metrics and /policy\n") })
        .with_state(admin)
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if admin.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn policy(State(admin): State<Arc<Admin>>, Extension(Client(client)): Extension<Client>) -> Response {
    match &*admin.policy.load() {
        Some(view) if client.ip().to_canonical().is_loopback() => axum::Json(&view.full).into_response(),
        Some(view) => axum::Json(&view.summary).into_response(),
        None if admin.holds_policy => {
            (StatusCode::SERVICE_UNAVAILABLE, "no policy is loaded\n").into_response()
        }
        None => (StatusCode::NOT_FOUND, "an edge has no policy; ask a verdict\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
