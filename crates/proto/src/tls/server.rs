//! The verdict's side.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::files::{Contents, Kept, TlsFileError};
use super::names::{AllowedNames, NamedClients, Told};
use super::{ALPN, provider, within_limit};

/// The files behind the verdict's side of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// The server's certificate with its chain, in PEM form.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who may have signed clients' certificates, in PEM form. With it a client must show one.
    pub client_ca: Option<PathBuf>,
}

/// How a server secures its connections.
pub struct ServerTls {
    files: ServerTlsFiles,
    kept: Kept<ServerConfig>,
    told: Told,
}

// === impl ServerTls ===

impl ServerTls {
    /// Reads the files; every mistake at once. Blocks on them.
    ///
    /// If `client_names` is not empty, a client's certificate must carry one of them as a DNS name.
    pub fn load(files: ServerTlsFiles, client_names: Vec<String>) -> Result<Arc<Self>, Vec<TlsFileError>> {
        let mut mistakes = Vec::new();
        if !client_names.is_empty() && files.client_ca.is_none() {
            mistakes.push(TlsFileError::NamesWithoutAuthority);
        }
        let names = AllowedNames::new(client_names);
        let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
        let paths = paths.into_iter().flatten().cloned().collect();
        let wanted = files.clone();
        let names = match names {
            Ok(names) => Arc::new(names),
            Err(wrong) => {
                mistakes.extend(wrong);
                Arc::new(AllowedNames::default())
            }
        };
        let kept = Kept::load("server", paths, move |contents| config(&wanted, &names, contents));
        match kept {
            Ok(kept) if mistakes.is_empty() => Ok(Arc::new(Self { files, kept, told: Told::default() })),
            kept => {
                mistakes.extend(kept.err().into_iter().flatten());
                Err(mistakes)
            }
        }
    }

    /// Does the handshake, within [`super::HANDSHAKE`]. An error means that this client is not to be served. What was
    /// wrong with its TLS is logged, once in a while; that it left or fell silent is not.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let peer = stream.peer_addr();
        let accepted = within_limit(TlsAcceptor::from(self.kept.current()).accept(stream)).await;
        if let (Err(error), Ok(peer)) = (&accepted, peer)
            && error.kind() == io::ErrorKind::InvalidData
            && let Some(untold) = self.told.may_tell(Instant::now())
        {
            tracing::warn!(%peer, %error, untold, "the TLS handshake of a gRPC client failed");
        }
        accepted
    }

    /// Reads the files again, and uses them for the next connection if they changed and are good. Bad ones are told of
    /// once, and the last good ones stay. Returns whether something changed. Blocks on the files.
    pub fn reload(&self) -> bool {
        self.kept.reload()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn config(
    files: &ServerTlsFiles,
    names: &Arc<AllowedNames>,
    contents: &Contents,
) -> Result<ServerConfig, Vec<TlsFileError>> {
    let provider = provider();
    let roots = files.client_ca.as_ref().map(|path| contents.authority(path)).transpose();
    let pair = contents.pair(&files.certificate, &files.key, &provider);
    let (roots, pair) = match (roots, pair) {
        (Ok(roots), Ok(pair)) => (roots, pair),
        (roots, pair) => {
            return Err(pair.err().into_iter().flatten().chain(roots.err()).collect());
        }
    };
    let setup = |error: rustls::Error| vec![TlsFileError::Setup(error)];
    let verifier: Arc<dyn ClientCertVerifier> = match roots {
        None => Arc::new(NoClientAuth),
        Some(roots) => {
            let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| setup(rustls::Error::General(error.to_string())))?;
            Arc::new(NamedClients::new(chain, Arc::clone(names)))
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
