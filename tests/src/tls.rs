//! A certificate for one test.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

/// Self-signed, for the gateway's host name, as two PEM files.
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    _folder: TempDir,
}

impl Certificate {
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate =
            Self { cert: folder.path().join("tls.crt"), key: folder.path().join("tls.key"), _folder: folder };
        certificate.renew(names);
        certificate
    }

    /// Writes another pair over the first.
    pub fn renew(&self, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
        fs::write(&self.cert, made.cert.pem()).unwrap();
    }
}
