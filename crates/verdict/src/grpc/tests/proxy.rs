//! A wire that can be held: what a client says is kept until it is let go, all at once.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::SocketAddr;

/// Carries one connection; whoever connects again finds nobody.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    /// While the wire is held.
    kept: Arc<Mutex<Option<Vec<u8>>>>,
    release: Arc<tokio::sync::Notify>,
}

/// Frame types (RFC 9113 section 6).
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;

const FRAME_HEADER: usize = 9;

impl Proxy {
    pub(super) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy =
            Self { address: listener.local_addr().unwrap(), kept: Arc::default(), release: Arc::default() };
        tokio::spawn(proxy.clone().carry(listener, server));
        proxy
    }

    async fn carry(self, listener: TcpListener, server: SocketAddr) {
        let (client, _) = listener.accept().await.unwrap();
        drop(listener);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut buffer = vec![0; 65536];
        loop {
            let said = tokio::select! {
                read = from_client.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => buffer[..count].to_vec(),
                },
                () = self.release.notified() => self.kept.lock().unwrap().take().unwrap_or_default(),
            };
            let held = match &mut *self.kept.lock().unwrap() {
                Some(kept) => {
                    kept.extend_from_slice(&said);
                    true
                }
                None => false,
            };
            if !held && to_server.write_all(&said).await.is_err() {
                return;
            }
        }
    }

    /// To be called while the client says nothing, so that what is kept begins with a frame.
    pub(super) fn hold(&self) {
        *self.kept.lock().unwrap() = Some(Vec::new());
    }

    pub(super) fn let_go(&self) {
        self.release.notify_one();
    }

    /// How many frames of a type are held.
    pub(super) fn count(&self, kind: u8) -> usize {
        let kept = self.kept.lock().unwrap();
        let mut rest = kept.as_deref().unwrap_or_default();
        let mut count = 0;
        while let Some((header, behind)) = rest.split_at_checked(FRAME_HEADER) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            count += usize::from(header[3] == kind);
            rest = behind.get(length..).unwrap_or_default();
        }
        count
    }
}
