//! A way to the API server that can be closed.

use kube::Config;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A port that leads to the API server while it is open.
pub(crate) struct Way {
    pub(crate) config: Config,
    port: u16,
    target: String,
    open: Option<JoinHandle<()>>,
}

impl Way {
    /// Still closed.
    pub(crate) async fn new(mut config: Config) -> Self {
        let target = config.cluster_url.authority().unwrap().to_string();
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        // The certificate's name is that of the target.
        config.tls_server_name = config.cluster_url.host().map(str::to_owned);
        config.cluster_url = format!("https://127.0.0.1:{port}").parse().unwrap();
        Self { config, port, target, open: None }
    }

    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let target = self.target.clone();
        self.open = Some(tokio::spawn(async move {
            // Dropped with it: connections end when the way is closed.
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        }));
    }

    pub(crate) async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
            let _ = open.await;
        }
    }
}
