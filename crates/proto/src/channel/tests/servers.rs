//! Real servers, each in a runtime of its own, so that one can die as a process does.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tonic::transport::Channel;
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status, Streaming};

use super::super::{Stream, not_done};
use crate::tls::ServerTls;
use crate::v1;
use crate::v1::verdict_service_client::VerdictServiceClient;
use crate::v1::verdict_service_server::{VerdictService, VerdictServiceServer};

/// The question that is never answered.
pub(super) const HANG: &str = "hang";

/// Its questions say, in `helo`, what is to be answered.
pub(super) struct Verdict {
    pub(super) address: SocketAddr,
    /// Told when a question came that waits.
    pub(super) entered: Arc<Notify>,
    /// Lets a waiting question go on.
    pub(super) go_on: Arc<Notify>,
    answered: Arc<AtomicU64>,
    go_down: Arc<Notify>,
    runtime: Option<Runtime>,
}

struct Service {
    entered: Arc<Notify>,
    go_on: Arc<Notify>,
    answered: Arc<AtomicU64>,
}

pub(super) fn client(channel: &Channel) -> VerdictServiceClient<Channel> {
    VerdictServiceClient::new(channel.clone())
}

pub(super) fn question(told: &str) -> v1::CheckConnectionRequest {
    let peer = v1::Peer { helo: Some(told.to_owned()), ..v1::Peer::default() };
    v1::CheckConnectionRequest { peer: Some(peer) }
}

pub(super) async fn ask(channel: &Channel, told: &str) -> Result<v1::CheckConnectionResponse, Status> {
    client(channel).check_connection(question(told)).await.map(Response::into_inner)
}

impl Verdict {
    pub(super) async fn start(tls: Option<Arc<ServerTls>>) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), tls).await
    }

    pub(super) async fn start_at(address: SocketAddr, tls: Option<Arc<ServerTls>>) -> Self {
        let (entered, go_on, go_down) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let answered = Arc::new(AtomicU64::new(0));
        let service = Service {
            entered: Arc::clone(&entered),
            go_on: Arc::clone(&go_on),
            answered: Arc::clone(&answered),
        };
        let runtime = Runtime::new().unwrap();
        let stop = Arc::clone(&go_down);
        let (ready, listening) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            let listener = socket.listen(64).unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            let (connections, incoming) = mpsc::channel(64);
            let accepting = tokio::spawn(accept(listener, tls, connections));
            let down = async {
                stop.notified().await;
                accepting.abort();
            };
            Server::builder()
                .add_service(VerdictServiceServer::new(service))
                .serve_with_incoming_shutdown(Incoming(incoming), down)
                .await
                .unwrap();
        });
        let address = listening.await.unwrap();
        Self { address, entered, go_on, answered, go_down, runtime: Some(runtime) }
    }

    /// Questions that were answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Takes no connection any more, says GOAWAY and finishes what is under way.
    pub(super) fn go_down(&self) {
        self.go_down.notify_one();
    }

    /// As SIGKILL would.
    pub(super) fn kill(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits until nothing of it runs: its sockets are closed then.
            std::thread::spawn(move || drop(runtime)).join().unwrap();
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tonic::async_trait]
impl VerdictService for Service {
    async fn check_connection(
        &self,
        request: Request<v1::CheckConnectionRequest>,
    ) -> Result<Response<v1::CheckConnectionResponse>, Status> {
        let told = request.into_inner().peer.and_then(|peer| peer.helo).unwrap();
        match told.as_str() {
            "not done" => return Err(not_done(Status::unavailable("not done"))),
            "unavailable" => return Err(Status::unavailable("perhaps done")),
            "marked with 0" => {
                let mut status = not_done(Status::unavailable("perhaps done"));
                status.metadata_mut().insert(super::NOT_DONE, "0".parse().unwrap());
                return Err(status);
            }
            HANG => {
                self.entered.notify_one();
                pending::<()>().await;
            }
            "wait" => {
                self.entered.notify_one();
                self.go_on.notified().await;
            }
            _ => {}
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(v1::CheckConnectionResponse {
            revision: "r1".to_owned(),
            ..v1::CheckConnectionResponse::default()
        }))
    }

    async fn check_recipients(
        &self,
        _: Request<v1::CheckRecipientsRequest>,
    ) -> Result<Response<v1::CheckRecipientsResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn check_message(
        &self,
        _: Request<Streaming<v1::CheckMessageRequest>>,
    ) -> Result<Response<v1::CheckMessageResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn report_outcome(
        &self,
        _: Request<v1::ReportOutcomeRequest>,
    ) -> Result<Response<v1::ReportOutcomeResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn get_route(
        &self,
        _: Request<v1::GetRouteRequest>,
    ) -> Result<Response<v1::GetRouteResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

async fn accept(listener: TcpListener, tls: Option<Arc<ServerTls>>, connections: mpsc::Sender<Connection>) {
    while let Ok((stream, _)) = listener.accept().await {
        let stream: Box<dyn Stream> = match &tls {
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => Box::new(stream),
                Err(_) => continue,
            },
            None => Box::new(stream),
        };
        if connections.send(Connection(stream)).await.is_err() {
            return;
        }
    }
}

struct Connection(Box<dyn Stream>);

struct Incoming(mpsc::Receiver<Connection>);

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Connection>>> {
        self.0.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
