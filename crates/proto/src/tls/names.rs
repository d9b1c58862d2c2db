//! Which clients may connect, by the names in their certificates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::files::TlsFileError;

/// The DNS names of clients that may connect; empty: all whose certificate the CA signed.
#[derive(Debug, Default)]
pub(super) struct AllowedNames {
    names: Vec<ServerName<'static>>,
    told: Told,
}

/// A client that is refused tries again every few seconds: one line in a while says enough.
#[derive(Debug, Default)]
pub(super) struct Told {
    state: Mutex<Telling>,
}

#[derive(Debug, Default)]
struct Telling {
    last: Option<Instant>,
    untold: u64,
}

/// Checks the chain, then the name, both within the handshake: a client that is refused hears a TLS alert.
#[derive(Debug)]
pub(super) struct NamedClients {
    chain: Arc<dyn ClientCertVerifier>,
    names: Arc<AllowedNames>,
}

/// At most one line about refused clients in so long.
const TELL_EVERY: Duration = Duration::from_secs(10);

// === impl AllowedNames ===

impl AllowedNames {
    pub(super) fn new(names: Vec<String>) -> Result<Self, Vec<TlsFileError>> {
        let (mut good, mut mistakes) = (Vec::new(), Vec::new());
        for name in names {
            match ServerName::try_from(name.clone()) {
                Ok(dns @ ServerName::DnsName(_)) => good.push(dns),
                _ => mistakes.push(TlsFileError::Name { name }),
            }
        }
        if mistakes.is_empty() { Ok(Self { names: good, told: Told::default() }) } else { Err(mistakes) }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.names.is_empty() {
            return Ok(());
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let mut had = Vec::new();
        for name in &self.names {
            match verify_server_name(&parsed, name) {
                Ok(()) => return Ok(()),
                Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                    presented,
                    ..
                })) => had = presented,
                Err(_) => {}
            }
        }
        if let Some(untold) = self.told.may_tell(Instant::now()) {
            tracing::warn!(
                names = %had.join(", "),
                untold,
                "a gRPC client was refused: none of its certificate's names is among the client names allowed"
            );
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }
}

// === impl Told ===

impl Told {
    /// How many refusals went untold since the last line, if it is time for one.
    pub(super) fn may_tell(&self, now: Instant) -> Option<u64> {
        let mut told = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < TELL_EVERY) {
            told.untold = told.untold.saturating_add(1);
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

// === impl NamedClients ===

impl NamedClients {
    pub(super) fn new(chain: Arc<dyn ClientCertVerifier>, names: Arc<AllowedNames>) -> Self {
        Self { chain, names }
    }
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.names.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_in_a_while_with_how_many_went_untold() {
        let told = Told::default();
        let start = Instant::now();
        assert_eq!(told.may_tell(start), Some(0));
        assert_eq!(told.may_tell(start + Duration::from_secs(1)), None);
        assert_eq!(told.may_tell(start + Duration::from_secs(9)), None);
        assert_eq!(told.may_tell(start + TELL_EVERY), Some(2));
        assert_eq!(told.may_tell(start + TELL_EVERY * 2), Some(0));
    }

    #[test]
    fn every_name_that_is_no_dns_name_is_told() {
        let names = ["edge", "10.0.0.1", "a b", "", "torwart-edge.torwart-system.svc"];
        let mistakes = AllowedNames::new(names.map(str::to_owned).to_vec()).unwrap_err();
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, name) in told.iter().zip(["\"10.0.0.1\"", "\"a b\"", "\"\""]) {
            assert!(told.starts_with(name), "{told}");
        }
    }
}
