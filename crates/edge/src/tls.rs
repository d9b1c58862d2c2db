//! STARTTLS: certificates that are read again when they change, chosen by the name that the client asks for.

#[cfg(test)]
mod tests;
mod validity;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsAcceptor;

use self::validity::Calendar;
use crate::settings::CertificateFiles;

/// The certificates of this process. An `Arc` of it answers every handshake.
pub(crate) struct Certificates {
    files: Vec<CertificateFiles>,
    current: ArcSwap<Vec<Arc<CertifiedKey>>>,
    /// What the files held when they were last looked at, good or bad, so that a change is acted on once.
    seen: Mutex<Vec<FileContents>>,
    calendar: Option<Calendar>,
    /// For each pair the certificate that an alarm was given for.
    alarmed: Mutex<Vec<Option<Arc<CertifiedKey>>>>,
    provider: Arc<CryptoProvider>,
}

/// Why a pair of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: no certificate in PEM form: {source}", path.display())]
    Certificate { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{}: no private key in PEM form: {source}", path.display())]
    Key { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{} and {} do not fit together: {source}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Reads the pairs and says everything that is wrong with them; keeps nothing.
pub fn check_certificates(files: &[CertificateFiles]) -> Vec<CertificateError> {
    Certificates::load(files).err().unwrap_or_default()
}

#[derive(PartialEq, Eq)]
struct FileContents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// How often the files are compared with what is in use. A projected Secret changes within a minute anyway.
pub(crate) const POLL: Duration = Duration::from_secs(5);
/// How long a handshake may take: as long as a command may (RFC 5321 section 4.5.3.2) would hold a slot for minutes.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(30);

// === impl Certificates ===

impl Certificates {
    /// Loads every pair, in the order given; every mistake at once. `None` without any pair.
    pub(crate) fn load(files: &[CertificateFiles]) -> Result<Option<Arc<Self>>, Vec<CertificateError>> {
        if files.is_empty() {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (mut seen, mut keys, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
        for pair in files {
            let loaded =
                read(pair).and_then(|contents| Ok((certified(pair, &contents, &provider)?, contents)));
            match loaded {
                Ok((key, contents)) => {
                    keys.push(key);
                    seen.push(contents);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Some(Arc::new(Self {
            files: files.to_vec(),
            current: ArcSwap::from_pointee(keys),
            seen: Mutex::new(seen),
            calendar: Calendar::new(&provider),
            alarmed: Mutex::new(vec![None; files.len()]),
            provider,
        })))
    }

    /// TLS 1.2 and 1.3. Sessions are resumed by tickets, which cost this process no memory.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// For each pair, in the order given, the last second that its certificate holds, since 1970.
    pub(crate) fn not_after(&self) -> Vec<u64> {
        let Some(calendar) = &self.calendar else { return Vec::new() };
        let keys = self.current.load();
        keys.iter().filter_map(|key| Some(calendar.not_after(key.end_entity_cert().ok()?))).collect()
    }

    /// Gives an alarm for each certificate that is expired, or not valid yet; once for each. It is still offered:
    /// most mail servers take any (RFC 7435). Returns how many alarms there were.
    pub(crate) fn sound_alarm(&self, now: UnixTime) -> usize {
        let Some(calendar) = &self.calendar else { return 0 };
        let keys = self.current.load();
        let mut alarmed = self.alarmed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alarms = 0;
        for ((pair, key), alarmed) in self.files.iter().zip(keys.iter()).zip(alarmed.iter_mut()) {
            if alarmed.as_ref().is_some_and(|known| Arc::ptr_eq(known, key)) {
                continue;
            }
            let fault = key.end_entity_cert().ok().and_then(|end| calendar.fault(end, now));
            *alarmed = fault.as_ref().map(|_| Arc::clone(key));
            if let Some(fault) = fault {
                let certificate = pair.certificate.display();
                tracing::error!(%certificate, %fault, "a certificate does not hold now; renew it");
                alarms += 1;
            }
        }
        alarms
    }

    /// Reads the files again. A pair that changed and is good replaces the old one; what is bad is reported once
    /// and the old one stays. Blocks on the files.
    pub(crate) fn reload(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = self.current.load().as_ref().clone();
        let mut changed = false;
        for ((pair, seen), key) in self.files.iter().zip(seen.iter_mut()).zip(keys.iter_mut()) {
            let contents = match read(pair) {
                Ok(contents) if contents == *seen => continue,
                Ok(contents) => contents,
                Err(error) => {
                    if !std::mem::take(&mut seen.certificate).is_empty() {
                        tracing::error!(%error, "a certificate cannot be read again; the last good one stays");
                    }
                    continue;
                }
            };
            match certified(pair, &contents, &self.provider) {
                Ok(new) => {
                    tracing::info!(certificate = %pair.certificate.display(), "certificate reloaded");
                    *key = new;
                    changed = true;
                }
                Err(error) => tracing::error!(%error, "a new certificate is bad; the last good one stays"),
            }
            *seen = contents;
        }
        if changed {
            self.current.store(Arc::new(keys));
        }
    }
}

impl ResolvesServerCert for Certificates {
    /// The first certificate that carries the asked name and that the client can verify; else the first that it can
    /// verify; else the first.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.current.load();
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        named
            .and_then(|name| keys.iter().filter(usable).find(|key| carries(key, &name)))
            .or_else(|| keys.iter().find(usable))
            .or_else(|| keys.first())
            .cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

fn carries(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

fn read(pair: &CertificateFiles) -> Result<FileContents, CertificateError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| CertificateError::Read { path: path.clone(), source })
    };
    Ok(FileContents { certificate: read(&pair.certificate)?, key: read(&pair.key)? })
}

fn certified(
    pair: &CertificateFiles,
    contents: &FileContents,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let bad = |source| CertificateError::Certificate { path: pair.certificate.clone(), source };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&contents.certificate).collect::<Result<_, _>>().map_err(bad)?;
    if chain.is_empty() {
        return Err(bad(rustls_pki_types::pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|source| CertificateError::Key { path: pair.key.clone(), source })?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|source| {
        CertificateError::Pair { certificate: pair.certificate.clone(), key: pair.key.clone(), source }
    })?;
    Ok(Arc::new(certified))
}
