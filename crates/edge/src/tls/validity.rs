//! Until when a certificate holds.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Asks rustls about a certificate's dates. It looks at them before anything else, so it does not matter that the
/// chain is not one of its roots'.
#[derive(Debug)]
pub(super) struct Calendar {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

/// The end of the year 9999, which stands for no end (RFC 5280 section 4.1.2.5).
const NO_END: u64 = 253_402_300_799;

// === impl Calendar ===

impl Calendar {
    pub(super) fn new(provider: &Arc<CryptoProvider>) -> Option<Self> {
        // one root is enough: without any the verifier can't be built
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().take(1).cloned().collect::<RootCertStore>();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .ok()?;
        Some(Self { verifier, name: ServerName::try_from("certificate.invalid").ok()? })
    }

    /// Why it does not hold at `now`, if it is expired or not valid yet.
    pub(super) fn fault(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<CertificateError> {
        match self.verifier.verify_server_cert(certificate, &[], &self.name, &[], now) {
            Err(Error::InvalidCertificate(
                fault @ (CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }),
            )) => Some(fault),
            Ok(_) | Err(_) => None,
        }
    }

    /// The last second that it holds, since 1970; the end of the year 9999 if it has no end.
    pub(super) fn not_after(&self, certificate: &CertificateDer<'_>) -> u64 {
        let end = UnixTime::since_unix_epoch(Duration::from_secs(NO_END));
        match self.fault(certificate, end) {
            Some(CertificateError::ExpiredContext { not_after, .. }) => not_after.as_secs(),
            _ => NO_END,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::crypto::aws_lc_rs;

    use super::*;

    #[test]
    fn the_dates_of_a_certificate_are_known_to_the_second() {
        let calendar = Calendar::new(&Arc::new(aws_lc_rs::default_provider())).unwrap();
        let issue = |from: i32, until: i32| {
            let mut params = CertificateParams::new(vec!["mx.example.net".to_owned()]).unwrap();
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (in_2020, in_2030) = (1_577_836_800, 1_893_456_000);
        let certificate = issue(2020, 2030);
        assert_eq!(calendar.not_after(&certificate), in_2030);
        assert_eq!(calendar.fault(&certificate, at(in_2020)), None);
        assert_eq!(calendar.fault(&certificate, at(in_2030)), None);
        let expired = calendar.fault(&certificate, at(in_2030 + 1)).unwrap();
        assert!(matches!(expired, CertificateError::ExpiredContext { .. }), "{expired:?}");
        let early = calendar.fault(&certificate, at(in_2020 - 1)).unwrap();
        assert!(matches!(early, CertificateError::NotValidYetContext { .. }), "{early:?}");
    }

    #[test]
    fn what_is_no_certificate_has_no_dates() {
        let calendar = Calendar::new(&Arc::new(aws_lc_rs::default_provider())).unwrap();
        assert_eq!(calendar.not_after(&CertificateDer::from(vec![1, 2, 3])), NO_END);
    }
}
