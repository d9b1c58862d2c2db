//! HTTP/2 without a channel's comforts: one connection, whose end can be seen, and no time limit of the client's own.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::body::Body;
use torwart_proto::v1::verdict_service_client::VerdictServiceClient;

use super::SocketAddr;

#[derive(Clone)]
pub(super) struct Raw(http2::SendRequest<Body>);

/// A client, and what ends with its connection.
pub(super) async fn raw(address: SocketAddr) -> (VerdictServiceClient<Raw>, JoinHandle<hyper::Result<()>>) {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let origin = Uri::from_static("http://verdict.example");
    (VerdictServiceClient::with_origin(Raw(sender), origin), tokio::spawn(connection))
}

impl tower::Service<Request<Body>> for Raw {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
