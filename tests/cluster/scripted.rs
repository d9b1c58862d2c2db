//! A verdict pod that says of itself what it is told to: for what a test can't bring about otherwise, another
//! release or the internet's opinion.

use std::sync::{Arc, Mutex};

use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use torwart_proto::v1::status_service_server::{StatusService, StatusServiceServer};
use torwart_proto::v1::{
    GetStatusRequest, GetStatusResponse, ListUpstreamOutcomesRequest, ListUpstreamOutcomesResponse,
    PolicyStatus, SuspectStatus,
};
use torwart_tests::cluster::{Installation, Pod};
use torwart_tests::endpoint;

/// Runs whatever is published, at once.
pub(crate) struct Scripted {
    status: Arc<Mutex<GetStatusResponse>>,
    _pod: Pod,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Service(Arc<Mutex<GetStatusResponse>>);

#[tonic::async_trait]
impl StatusService for Service {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.0.lock().unwrap().clone()))
    }

    async fn list_upstream_outcomes(
        &self,
        _: Request<ListUpstreamOutcomesRequest>,
    ) -> Result<Response<ListUpstreamOutcomesResponse>, Status> {
        Ok(Response::new(ListUpstreamOutcomesResponse::default()))
    }
}

impl Scripted {
    pub(crate) fn start(installation: &Installation, name: &str) -> Self {
        let status = GetStatusResponse {
            version: "0.1.0".to_owned(),
            started_at: 1,
            policy: Some(PolicyStatus { revision: String::new(), sequence: u64::MAX >> 1, loaded_at: 1 }),
            formats_read: vec![1],
            suspects: Some(SuspectStatus::default()),
            ..GetStatusResponse::default()
        };
        let status = Arc::new(Mutex::new(status));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (certificate, _) = installation.server_files();
        let (cert, key) =
            (std::fs::read(&certificate.cert).unwrap(), std::fs::read(&certificate.key).unwrap());
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
        let address = endpoint();
        let service = StatusServiceServer::new(Service(Arc::clone(&status)));
        let server = {
            let _inside = runtime.enter();
            Server::builder().tls_config(tls).unwrap().add_service(service).serve(address)
        };
        runtime.spawn(async move { server.await.unwrap() });
        torwart_tests::wait_listening(address);
        let pod = installation.pod(name, address);
        Self { status, _pod: pod, _runtime: runtime }
    }

    /// From now on it says this.
    pub(crate) fn says(&self, change: impl FnOnce(&mut GetStatusResponse)) {
        change(&mut self.status.lock().unwrap());
    }
}
