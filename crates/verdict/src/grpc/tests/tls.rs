use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use torwart_proto::tls::{ClientTls, ClientTlsFiles, ServerTls, ServerTlsFiles};

use super::*;

/// A CA and what it issues, in files.
pub(super) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificate and key.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (self.file(&format!("{name}.crt")), self.file(&format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    pub(super) fn channel(&self, setup: &Setup) -> Channel {
        channel(setup, &self.file("ca.pem"), Some(self.issue("edge.example")))
    }

    pub(super) async fn start(&self) -> Setup {
        let (certificate, key) = self.issue("torwart-verdict");
        let files = ServerTlsFiles { certificate, key, client_ca: Some(self.file("ca.pem")) };
        let tls = ServerTls::load(files, vec!["edge.example".to_owned()]).unwrap();
        start_with(None, |settings| settings.tls = Some(tls)).await
    }
}

/// A connection of a client with a certificate of its own, or without one.
fn channel(setup: &Setup, ca: &Path, own: Option<(PathBuf, PathBuf)>) -> Channel {
    let (certificate, key) = own.unzip();
    let files = ClientTlsFiles { ca: Some(ca.to_owned()), certificate, key };
    let tls = ClientTls::load(files, "torwart-verdict").unwrap();
    connect(setup.address, Some(tls), &ChannelSettings::default())
}

async fn ask(setup: &Setup, ca: &Path, own: Option<(PathBuf, PathBuf)>) -> Result<(), Status> {
    let mut client = VerdictServiceClient::new(channel(setup, ca, own));
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.map(|_| ())
}

#[tokio::test]
async fn only_clients_with_the_right_name_from_the_right_ca_are_served() {
    let authority = Authority::new();
    let ca = authority.file("ca.pem");
    let setup = authority.start().await;
    let good = authority.issue("edge.example");
    ask(&setup, &ca, Some(good.clone())).await.unwrap();

    let others = Authority::new();
    let stranger = others.issue("edge.example");
    for (what, own) in [
        ("no certificate", None),
        ("another name", Some(authority.issue("other.example"))),
        ("another CA", Some(stranger)),
    ] {
        assert!(ask(&setup, &ca, own).await.is_err(), "{what}");
    }
    assert_eq!(setup.connections_refused("tls"), 3);
    assert!(
        patiently(setup.verdict().check_connection(connection_request(CLIENT))).await.is_err(),
        "clear text"
    );
    ask(&setup, &ca, Some(good)).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_holds_up_nobody() {
    let authority = Authority::new();
    let setup = authority.start().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(setup.address).await.unwrap());
    }
    until(|| setup.connections() == 50).await;
    let own = authority.issue("edge.example");
    ask(&setup, &authority.file("ca.pem"), Some(own)).await.unwrap();
    assert_eq!(setup.connections_refused("tls"), 0);
}
