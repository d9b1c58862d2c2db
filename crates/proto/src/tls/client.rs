//! The edge's side.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{Contents, Kept, TlsFileError};
use super::{ALPN, provider, within_limit};

/// The files behind the edge's side of the channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// Who may have signed the server's certificate, in PEM form; `None`: the public CAs (Mozilla's).
    pub ca: Option<PathBuf>,
    /// What the client proves itself with. Both or none.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// How a client secures its connections.
pub struct ClientTls {
    files: ClientTlsFiles,
    server_name: ServerName<'static>,
    kept: Kept<ClientConfig>,
}

// === impl ClientTls ===

impl ClientTls {
    /// Reads the files; every mistake at once. Blocks on them.
    ///
    /// A server must show a certificate that carries `server_name`, whatever name or address it is reached by.
    pub fn load(files: ClientTlsFiles, server_name: &str) -> Result<Arc<Self>, Vec<TlsFileError>> {
        let mut mistakes = Vec::new();
        let name = ServerName::try_from(server_name.to_owned());
        if name.is_err() {
            mistakes.push(TlsFileError::Name { name: server_name.to_owned() });
        }
        let paths = [&files.ca, &files.certificate, &files.key].into_iter().flatten().cloned().collect();
        let wanted = files.clone();
        let kept = Kept::load("client", paths, move |contents| config(&wanted, contents));
        match (name, kept) {
            (Ok(server_name), Ok(kept)) => Ok(Arc::new(Self { files, server_name, kept })),
            (_, kept) => {
                mistakes.extend(kept.err().into_iter().flatten());
                Err(mistakes)
            }
        }
    }

    /// Does the handshake, within [`super::HANDSHAKE`]. An error means that this server is not to be trusted, or does
    /// not speak HTTP/2.
    ///
    /// With TLS 1.3 it is only the first answer that shows whether the server took our certificate.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.kept.current());
        let stream = within_limit(connector.connect(self.server_name.clone(), stream)).await?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak HTTP/2"));
        }
        Ok(stream)
    }

    /// Reads the files again, and uses them for the next connection if they changed and are good. Bad ones are told of
    /// once, and the last good ones stay. Returns whether something changed. Blocks on the files.
    pub fn reload(&self) -> bool {
        self.kept.reload()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("files", &self.files)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

fn config(files: &ClientTlsFiles, contents: &Contents) -> Result<ClientConfig, Vec<TlsFileError>> {
    let provider = provider();
    let roots = match &files.ca {
        Some(path) => contents.authority(path).map_err(|mistake| vec![mistake]),
        None => Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
    };
    let pair: Result<Option<Arc<CertifiedKey>>, _> = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => contents.pair(certificate, key, &provider).map(Some),
        (None, None) => Ok(None),
        (Some(path), None) | (None, Some(path)) => Err(vec![TlsFileError::Alone { path: path.clone() }]),
    };
    let (roots, pair) = match (roots, pair) {
        (Ok(roots), Ok(pair)) => (roots, pair),
        (roots, pair) => {
            return Err(roots.err().into_iter().chain(pair.err()).flatten().collect());
        }
    };
    let setup = |error: rustls::Error| vec![TlsFileError::Setup(error)];
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| setup(rustls::Error::General(error.to_string())))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_webpki_verifier(verifier);
    let mut config = match pair {
        Some(pair) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
