//! Certificates for one test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// A certificate and its key, as two PEM files.
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    _folder: TempDir,
}

/// Signs certificates; its own is a PEM file.
pub struct Authority {
    pub cert: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    _folder: TempDir,
}

// === impl Certificate ===

impl Certificate {
    /// Self-signed, for these names.
    pub fn new(names: &[&str]) -> Self {
        let certificate = Self::nowhere();
        certificate.renew(names);
        certificate
    }

    /// Self-signed, and over since 2020.
    pub fn expired(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = Self::nowhere();
        certificate.write(&key.serialize_pem(), &params.self_signed(&key).unwrap().pem());
        certificate
    }

    /// Writes another self-signed pair over the first.
    pub fn renew(&self, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        self.write(&made.signing_key.serialize_pem(), &made.cert.pem());
    }

    fn nowhere() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { cert: folder.path().join("tls.crt"), key: folder.path().join("tls.key"), _folder: folder }
    }

    fn write(&self, key: &str, cert: &str) {
        put(&self.key, key);
        put(&self.cert, cert);
    }
}

// === impl Authority ===

impl Authority {
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cert = folder.path().join("ca.crt");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        put(&cert, &issuer.pem());
        Self { cert, issuer, _folder: folder }
    }

    /// A certificate for these names, for servers and clients.
    pub fn issue(&self, names: &[&str]) -> Certificate {
        let certificate = Certificate::nowhere();
        self.reissue(&certificate, names);
        certificate
    }

    /// Writes another pair over one that there is.
    pub fn reissue(&self, certificate: &Certificate, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        certificate.write(&key.serialize_pem(), &made.pem());
    }
}

/// Whole or not at all, as whoever renews certificates in earnest does it.
fn put(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(&next, file).unwrap();
}
