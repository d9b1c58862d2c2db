//! PEM files that are read at the start and again later, and what was made of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why the files of the channel cannot be used: which one, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("{}: {}; it must be readable by this process", path.display(), io::Error::from(*kind))]
    Read { path: PathBuf, kind: io::ErrorKind },
    #[error("{}: {source}; it must hold certificates in PEM form", path.display())]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("{}: {source}; it must hold one private key in PEM form", path.display())]
    Key { path: PathBuf, source: pem::Error },
    #[error("{} and {}: {source}; the key must be the first certificate's", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{}: {source}; it must hold the certificates of a CA", path.display())]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("{}: a certificate and its key belong together; give both or none", path.display())]
    Alone { path: PathBuf },
    #[error("{name:?} is no DNS name; give one as in \"torwart-verdict\"")]
    Name { name: String },
    #[error("client names are given, but no CA for client certificates; give the CA too, or no names")]
    NamesWithoutAuthority,
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What the files held when they were last looked at.
#[derive(PartialEq, Eq)]
pub(super) struct Contents(BTreeMap<PathBuf, Result<Vec<u8>, io::ErrorKind>>);

type Make<C> = dyn Fn(&Contents) -> Result<C, Vec<TlsFileError>> + Send + Sync;

/// What was made of the files, in the last form in which they were good.
pub(super) struct Kept<C> {
    /// For the log: whose files they are.
    whose: &'static str,
    paths: Vec<PathBuf>,
    make: Box<Make<C>>,
    /// Good or bad, so that a change is acted on, and told of, once.
    seen: Mutex<Contents>,
    current: ArcSwap<C>,
}

// === impl Kept ===

impl<C> Kept<C> {
    pub(super) fn load(
        whose: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn(&Contents) -> Result<C, Vec<TlsFileError>> + Send + Sync + 'static,
    ) -> Result<Self, Vec<TlsFileError>> {
        let contents = Contents::read(&paths);
        let current = ArcSwap::from_pointee(make(&contents)?);
        Ok(Self { whose, paths, make: Box::new(make), seen: Mutex::new(contents), current })
    }

    pub(super) fn current(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// Reads the files again. What changed and is good is used from now on; what is bad is told of once, and the last
    /// good form stays. Returns whether something else is used now. Blocks on the files.
    pub(super) fn reload(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = Contents::read(&self.paths);
        if contents == *seen {
            return false;
        }
        let made = (self.make)(&contents);
        *seen = contents;
        match made {
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!(whose = self.whose, "the certificates of the gRPC channel are reloaded");
                true
            }
            Err(mistakes) => {
                for error in mistakes {
                    tracing::error!(
                        whose = self.whose,
                        %error,
                        "new certificates of the gRPC channel are bad; the last good ones stay"
                    );
                }
                false
            }
        }
    }
}

// === impl Contents ===

impl Contents {
    fn read(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| (path.clone(), std::fs::read(path).map_err(|e| e.kind()))).collect())
    }

    fn of(&self, path: &Path) -> Result<&[u8], TlsFileError> {
        let read = self.0.get(path).map_or(Err(io::ErrorKind::NotFound), |read| match read {
            Ok(bytes) => Ok(bytes.as_slice()),
            Err(kind) => Err(*kind),
        });
        read.map_err(|kind| TlsFileError::Read { path: path.to_owned(), kind })
    }

    fn certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let bad = |source| TlsFileError::Certificate { path: path.to_owned(), source };
        let all: Vec<_> =
            CertificateDer::pem_slice_iter(self.of(path)?).collect::<Result<_, _>>().map_err(bad)?;
        if all.is_empty() { Err(bad(pem::Error::NoItemsFound)) } else { Ok(all) }
    }

    /// A certificate with its chain, and the key that fits it.
    pub(super) fn pair(
        &self,
        certificate: &Path,
        key: &Path,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, Vec<TlsFileError>> {
        let chain = self.certificates(certificate);
        let private = self.of(key).and_then(|bytes| {
            PrivateKeyDer::from_pem_slice(bytes)
                .map_err(|source| TlsFileError::Key { path: key.to_owned(), source })
        });
        let (chain, private) = match (chain, private) {
            (Ok(chain), Ok(private)) => (chain, private),
            (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
        };
        match CertifiedKey::from_der(chain, private, provider) {
            Ok(pair) => Ok(Arc::new(pair)),
            Err(source) => Err(vec![TlsFileError::Pair {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                source,
            }]),
        }
    }

    /// The certificates of a CA that is trusted, and no other.
    pub(super) fn authority(&self, path: &Path) -> Result<RootCertStore, TlsFileError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(path)? {
            roots
                .add(certificate)
                .map_err(|source| TlsFileError::Authority { path: path.to_owned(), source })?;
        }
        Ok(roots)
    }
}
