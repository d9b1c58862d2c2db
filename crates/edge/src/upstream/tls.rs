//! TLS towards upstreams: which certificate is good enough, and how a handshake is made.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use torwart_core::{Host, TlsMode, UpstreamTls};

/// Makes rustls configurations and keeps them: one per set of trusted certificates, so that TLS sessions resume.
#[derive(Debug)]
pub(super) struct TlsConfigs {
    provider: Arc<CryptoProvider>,
    /// Short, so a list does.
    made: Mutex<Vec<(Trust, Arc<ClientConfig>)>>,
}

/// Whose certificates are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trust {
    Anyone,
    PublicRoots,
    Pem(Arc<str>),
}

/// Takes any certificate, but the peer must hold its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

/// The route's TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsSetupError {
    #[error("the route's CA holds no usable certificate")]
    NoCertificate,
    #[error("{0:?} is no name that a certificate can carry")]
    Name(String),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// Configurations kept. A gateway has one or two; tenants with a CA each have more.
const KEPT: usize = 64;

// === impl TlsConfigs ===

impl TlsConfigs {
    pub(super) fn new() -> Self {
        Self { provider: Arc::new(aws_lc_rs::default_provider()), made: Mutex::new(Vec::new()) }
    }

    /// The configuration for `tls`. Fails only if its CA is unusable.
    pub(super) fn get(&self, tls: &UpstreamTls) -> Result<Arc<ClientConfig>, TlsSetupError> {
        let trust = match (tls.mode, &tls.ca) {
            (TlsMode::Required, Some(pem)) => Trust::Pem(pem.clone()),
            (TlsMode::Required, None) => Trust::PublicRoots,
            (TlsMode::Opportunistic | TlsMode::Disabled, _) => Trust::Anyone,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = made.iter().find(|(known, _)| *known == trust) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.make(&trust)?);
        if made.len() >= KEPT {
            made.remove(0);
        }
        made.push((trust, config.clone()));
        Ok(config)
    }

    fn make(&self, trust: &Trust) -> Result<ClientConfig, TlsSetupError> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match trust {
            Trust::Anyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(self.provider.clone()))),
            Trust::PublicRoots => builder
                .with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
            Trust::Pem(pem) => builder.with_root_certificates(roots(pem)?),
        };
        Ok(builder.with_no_client_auth())
    }
}

fn roots(pem: &str) -> Result<RootCertStore, TlsSetupError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.map_err(|_| TlsSetupError::NoCertificate)?)?;
    }
    if store.is_empty() { Err(TlsSetupError::NoCertificate) } else { Ok(store) }
}

/// The name that is sent as SNI and, where the mode is Required, that the certificate must carry. With Opportunistic
/// a host name that no certificate can carry (`_smtp.host`) is no obstacle: the address stands in for it.
pub(super) fn server_name(
    tls: &UpstreamTls,
    host: &Host,
    address: IpAddr,
) -> Result<ServerName<'static>, TlsSetupError> {
    let named = match (&tls.server_name, host) {
        (Some(name), _) | (None, Host::Name(name)) => name,
        (None, Host::Address(ip)) => return Ok(ServerName::from(*ip)),
    };
    match ServerName::try_from(named.trim_end_matches('.').to_owned()) {
        Ok(name) => Ok(name),
        Err(_) if tls.mode != TlsMode::Required => Ok(ServerName::from(address)),
        Err(_) => Err(TlsSetupError::Name(named.to_string())),
    }
}

// === impl AnyCertificate ===

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(ca: Option<&str>, server_name: Option<&str>) -> UpstreamTls {
        UpstreamTls {
            mode: TlsMode::Required,
            implicit: false,
            server_name: server_name.map(Arc::from),
            ca: ca.map(Arc::from),
        }
    }

    #[test]
    fn equal_trust_shares_one_configuration() {
        let configs = TlsConfigs::new();
        let first = configs.get(&required(None, None)).unwrap();
        let second = configs.get(&required(None, Some("mx.example"))).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        let anyone =
            configs.get(&UpstreamTls { mode: TlsMode::Opportunistic, ..required(None, None) }).unwrap();
        assert!(!Arc::ptr_eq(&first, &anyone));
    }

    #[test]
    fn a_ca_without_a_certificate_is_an_error() {
        let configs = TlsConfigs::new();
        for pem in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(configs.get(&required(Some(pem), None)).is_err(), "{pem:?}");
        }
    }

    #[test]
    fn the_certificate_must_carry_the_name_given_else_the_hosts_own() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let host = Host::Name("mx.example.".into());
        let name =
            |tls: &UpstreamTls, host: &Host| server_name(tls, host, address).map(|n| n.to_str().into_owned());
        assert_eq!(name(&required(None, None), &host).unwrap(), "mx.example");
        assert_eq!(name(&required(None, Some("other.example")), &host).unwrap(), "other.example");
        assert_eq!(name(&required(None, None), &Host::Address(address)).unwrap(), "192.0.2.7");
        let odd = Host::Name("not a name".into());
        assert!(name(&required(None, None), &odd).is_err());
        let opportunistic = UpstreamTls { mode: TlsMode::Opportunistic, ..required(None, None) };
        assert_eq!(name(&opportunistic, &odd).unwrap(), "192.0.2.7");
    }
}
