//! What the flags say of the connection, beside its URL.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::TlsCertificates;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::url::RedisUrl;

/// The files are read again for each new connection, so that what is replaced on disk is taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisOptions {
    /// `--store-username`; goes before the URL's.
    pub username: Option<String>,
    /// `--store-password-file`; goes before the URL's.
    pub password_file: Option<PathBuf>,
    /// `--store-ca`: who may have signed the server's certificate. Without it: the public authorities.
    pub ca_file: Option<PathBuf>,
    /// `--store-timeout`: no call takes longer.
    pub timeout: Duration,
}

/// For one connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// A password or a bundle of certificates is smaller; anything else is not the file that was meant.
const MAX_FILE: u64 = 1 << 20;

// === impl RedisOptions ===

impl Default for RedisOptions {
    fn default() -> Self {
        Self { username: None, password_file: None, ca_file: None, timeout: Duration::from_millis(100) }
    }
}

impl RedisOptions {
    /// Blocks on files.
    pub(super) fn credentials(&self, url: &RedisUrl) -> Result<Credentials, String> {
        let from_url = url.credentials();
        let password = match &self.password_file {
            Some(path) => Some(read_password(path)?),
            None => from_url.password.clone(),
        };
        let username = self.username.clone().or_else(|| from_url.username.clone());
        if username.is_some() && password.is_none() {
            return Err(
                "--store names a user (so may --store-username) but no password; give --store-password-file"
                    .to_owned(),
            );
        }
        Ok(Credentials { username, password })
    }

    /// `None`: no TLS. Blocks on files.
    pub(super) fn certificates(&self, url: &RedisUrl) -> Result<Option<TlsCertificates>, String> {
        if !url.is_tls() {
            return match &self.ca_file {
                Some(_) => {
                    Err("--store-ca is given, but --store is not encrypted; write rediss:// there".to_owned())
                }
                None => Ok(None),
            };
        }
        let root_cert = self.ca_file.as_deref().map(read_authorities).transpose()?;
        Ok(Some(TlsCertificates { client_tls: None, root_cert }))
    }
}

fn read_password(path: &Path) -> Result<String, String> {
    let say = |what: &str| format!("--store-password-file {}: {what}", path.display());
    let bytes = read(path).map_err(|error| say(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| say("is not UTF-8 text"))?;
    let password =
        text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    match password {
        "" => Err(say("is empty; write the password into it")),
        password if password.contains('\n') => {
            Err(say("has more than one line; write nothing but the password"))
        }
        password => Ok(password.to_owned()),
    }
}

fn read_authorities(path: &Path) -> Result<Vec<u8>, String> {
    let say = |what: &str| format!("--store-ca {}: {what}", path.display());
    let pem = read(path).map_err(|error| say(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| say(&format!("is no PEM file: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| say(&format!("holds a certificate that is no good: {error}")))?;
    }
    if roots.is_empty() { Err(say("holds no certificate; give a PEM file")) } else { Ok(pem) }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= MAX_FILE => Ok(bytes),
        _ => Err("is larger than 1 MiB".to_owned()),
    }
}

// === impl Credentials ===

impl Credentials {
    pub(super) fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "***");
        f.debug_struct("Credentials").field("username", &self.username).field("password", &password).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_file(text: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn mk_options(password: &Path) -> RedisOptions {
        RedisOptions { password_file: Some(password.to_owned()), ..RedisOptions::default() }
    }

    #[test]
    fn a_password_is_the_files_one_line_without_its_end() {
        let url: RedisUrl = "redis://someone:of-the-url@localhost".parse().unwrap();
        for (text, password) in [("a b\n", "a b"), ("a\r\n", "a"), ("a ", "a "), ("p", "p")] {
            let file = mk_file(text.as_bytes());
            let read = mk_options(file.path()).credentials(&url).unwrap();
            assert_eq!(read.password.as_deref(), Some(password), "{text:?}");
            assert_eq!(read.username.as_deref(), Some("someone"));
            assert!(!format!("{read:?}").contains(&format!("{password:?}")), "{read:?}");
        }
    }

    #[test]
    fn a_bad_password_file_is_named_with_its_flag_and_not_quoted() {
        let url: RedisUrl = "redis://localhost".parse().unwrap();
        let large = vec![b'a'; 2 << 20];
        let texts: [&[u8]; 5] = [b"", b"\n", b"secret\nsecret\n", b"\xff\xfe", &large];
        for text in texts {
            let file = mk_file(text);
            let error = mk_options(file.path()).credentials(&url).unwrap_err();
            let start = format!("--store-password-file {}: ", file.path().display());
            assert!(error.starts_with(&start) && !error.contains("secret"), "{error}");
        }
        let error = mk_options(Path::new("/does/not/exist")).credentials(&url).unwrap_err();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_user_without_a_password_is_a_mistake() {
        let options = RedisOptions { username: Some("someone".to_owned()), ..RedisOptions::default() };
        for (url, options) in
            [("redis://localhost", options), ("redis://u@localhost", RedisOptions::default())]
        {
            let error = options.credentials(&url.parse().unwrap()).unwrap_err();
            assert!(error.contains("--store-password-file"), "{error}");
        }
    }

    #[test]
    fn a_bad_ca_file_is_named_with_its_flag_and_one_that_is_of_no_use_too() {
        let (clear, tls): (RedisUrl, RedisUrl) =
            ("redis://localhost".parse().unwrap(), "rediss://localhost".parse().unwrap());
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "no certificate at all", bad, "-----BEGIN CERTIFICATE-----\n"] {
            let file = mk_file(text.as_bytes());
            let options = RedisOptions { ca_file: Some(file.path().to_owned()), ..RedisOptions::default() };
            let error = options.certificates(&tls).unwrap_err();
            assert!(error.starts_with(&format!("--store-ca {}: ", file.path().display())), "{error}");
            let error = options.certificates(&clear).unwrap_err();
            assert!(error.contains("write rediss://"), "{error}");
        }
    }
}
