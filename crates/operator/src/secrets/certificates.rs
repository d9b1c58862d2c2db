//! An authority of an installation's own, and what it signs.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The authority outlives the installation: when it ends, all of it is made anew (delete `PREFIX-ca`).
const AUTHORITY_LASTS: Duration = days(10 * 365);
/// A certificate; renewed when half of it is over.
const CERTIFICATE_LASTS: Duration = days(365);
/// Clocks of machines differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// A private key and its certificate, both PEM.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) certificate: String,
    pub(super) not_after: Timestamp,
}

/// Who shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Server,
    Client,
}

/// Signs certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: String,
    not_after: Timestamp,
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// Whether more than half of a certificate's time is left.
pub(super) fn is_fresh(not_after: Timestamp, now: Timestamp) -> bool {
    not_after > now.saturating_add(CERTIFICATE_LASTS / 2).unwrap_or(Timestamp::MAX)
}

// === impl Authority ===

impl Authority {
    /// A new one, with the pair to keep.
    pub(super) fn new(prefix: &str, now: Timestamp) -> Result<(Self, Pair), rcgen::Error> {
        let key = KeyPair::generate()?;
        let not_after = now.saturating_add(AUTHORITY_LASTS).unwrap_or(Timestamp::MAX);
        let mut params = authority(prefix);
        params.not_before = moment(now.saturating_sub(EARLIER).unwrap_or(Timestamp::MIN))?;
        params.not_after = moment(not_after)?;
        let certificate = params.self_signed(&key)?.pem();
        let pair = Pair { key: key.serialize_pem(), certificate: certificate.clone(), not_after };
        Ok((Self { issuer: Issuer::new(authority(prefix), key), certificate, not_after }, pair))
    }

    /// The one that was kept.
    pub(super) fn again(prefix: &str, pair: Pair) -> Result<Self, rcgen::Error> {
        let Pair { key, certificate, not_after } = pair;
        let issuer = Issuer::new(authority(prefix), KeyPair::from_pem(&key)?);
        Ok(Self { issuer, certificate, not_after })
    }

    pub(super) fn sign(&self, names: &[String], usage: Use, now: Timestamp) -> Result<Pair, rcgen::Error> {
        let key = KeyPair::generate()?;
        let end = now.saturating_add(CERTIFICATE_LASTS).unwrap_or(Timestamp::MAX);
        let not_after = end.min(self.not_after);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("", String::as_str));
        params.not_before = moment(now.saturating_sub(EARLIER).unwrap_or(Timestamp::MIN))?;
        params.not_after = moment(not_after)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { key: key.serialize_pem(), certificate: certificate.pem(), not_after })
    }
}

/// The same for the same installation: what an issuer's name in a certificate is made from.
fn authority(prefix: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{prefix} internal authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// To the second, as a certificate has it.
fn moment(at: Timestamp) -> Result<time::OffsetDateTime, rcgen::Error> {
    time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| rcgen::Error::Time)
}
