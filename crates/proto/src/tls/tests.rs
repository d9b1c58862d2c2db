use std::fs;
use std::path::PathBuf;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::testing::{Authority, Lines};

const NAME: &str = "torwart-verdict";

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// A handshake, and then a byte from the server: with TLS 1.3 only that shows a client that it is served. Errors of
/// (client, server).
async fn meet(client: &ClientTls, server: &ServerTls) -> (Result<(), String>, Result<(), String>) {
    let (there, here) = pair().await;
    let serve = Box::pin(async {
        let mut stream = server.accept(here).await.map_err(|error| error.to_string())?;
        stream.write_all(b"x").await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())
    });
    let ask = Box::pin(async {
        let mut stream = client.connect(there).await.map_err(|error| error.to_string())?;
        let byte = stream.read_u8().await.map_err(|error| error.to_string())?;
        assert_eq!(byte, b'x');
        Ok(())
    });
    tokio::join!(ask, serve)
}

fn client(files: ClientTlsFiles) -> Arc<ClientTls> {
    ClientTls::load(files, NAME).unwrap()
}

fn server(files: ServerTlsFiles, names: &[&str]) -> Arc<ServerTls> {
    ServerTls::load(files, names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
}

fn anonymous(ca: PathBuf) -> ClientTlsFiles {
    ClientTlsFiles { ca: Some(ca), certificate: None, key: None }
}

fn assert_refused(result: Result<(), String>, why: &str) {
    let error = result.unwrap_err();
    assert!(error.contains(why), "{error:?} does not say {why:?}");
}

#[tokio::test]
async fn ends_that_know_each_other_meet() {
    let authority = Authority::new();
    let ca = authority.ca();
    let server = server(authority.server(&[NAME], Some(&ca)), &["torwart-edge"]);
    let client = client(authority.client(&["other.example", "torwart-edge"], &ca));
    assert_eq!(meet(&client, &server).await, (Ok(()), Ok(())));
    let (there, here) = pair().await;
    let (stream, accepted) = tokio::join!(client.connect(there), server.accept(here));
    let (stream, accepted) = (stream.unwrap(), accepted.unwrap());
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(accepted.get_ref().1.alpn_protocol(), Some(ALPN));
}

#[tokio::test]
async fn a_client_needs_no_certificate_where_none_is_asked_for() {
    let authority = Authority::new();
    let server = server(authority.server(&[NAME], None), &[]);
    assert_eq!(meet(&client(anonymous(authority.ca())), &server).await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = server(authority.server(&[NAME], None), &[]);
    let (asked, served) = meet(&client(anonymous(other.ca())), &server).await;
    assert_refused(asked, "UnknownIssuer");
    assert!(served.is_err());
    // The public CAs did not sign it either.
    let (asked, _) = meet(&client(ClientTlsFiles::default()), &server).await;
    assert_refused(asked, "UnknownIssuer");
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let authority = Authority::new();
    let server = server(authority.server(&["other.example"], None), &[]);
    let (asked, served) = meet(&client(anonymous(authority.ca())), &server).await;
    assert_refused(asked, "not valid for name");
    assert!(served.is_err());
}

#[tokio::test]
async fn a_server_whose_certificate_is_expired_is_refused() {
    let authority = Authority::new();
    let mut files = authority.server(&[NAME], None);
    (files.certificate, files.key) = authority.issue_until("expired", &[NAME], 2021);
    let (asked, served) = meet(&client(anonymous(authority.ca())), &server(files, &[])).await;
    assert_refused(asked, "expired");
    assert!(served.is_err());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    let authority = Authority::new();
    let ca = authority.ca();
    let server = server(authority.server(&[NAME], Some(&ca)), &[]);
    let (asked, served) = meet(&client(anonymous(ca)), &server).await;
    assert_refused(asked, "CertificateRequired");
    assert_refused(served, "no certificates");
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = server(authority.server(&[NAME], Some(&authority.ca())), &[]);
    let (asked, served) = meet(&client(other.client(&["torwart-edge"], &authority.ca())), &server).await;
    assert!(asked.is_err());
    assert_refused(served, "UnknownIssuer");
}

#[tokio::test]
async fn a_client_whose_certificate_is_expired_is_refused() {
    let authority = Authority::new();
    let ca = authority.ca();
    let server = server(authority.server(&[NAME], Some(&ca)), &[]);
    let (certificate, key) = authority.issue_until("old", &["torwart-edge"], 2021);
    let old = ClientTlsFiles { ca: Some(ca), certificate: Some(certificate), key: Some(key) };
    let (asked, served) = meet(&client(old), &server).await;
    assert!(asked.is_err());
    assert_refused(served, "expired");
}

#[tokio::test]
async fn a_client_whose_name_is_not_allowed_is_refused_and_its_names_are_told() {
    let (lines, _guard) = Lines::start();
    let authority = Authority::new();
    let ca = authority.ca();
    let server = server(authority.server(&[NAME], Some(&ca)), &["torwart-edge", "edge.example"]);
    let stranger = client(authority.client(&["web.example", "shop.example"], &ca));
    for _ in 0..2 {
        let (asked, served) = meet(&stranger, &server).await;
        assert_refused(asked, "AccessDenied");
        assert!(served.is_err());
    }
    let told = lines.with("client was refused");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("web.example") && told[0].contains("shop.example"), "{told:?}");
}

#[tokio::test]
async fn new_files_are_used_for_the_next_connection_on_either_side() {
    let (authority, next) = (Authority::new(), Authority::new());
    let files = authority.server(&[NAME], Some(&authority.ca()));
    let server = server(files.clone(), &[]);
    let client_files = authority.client(&["torwart-edge"], &authority.ca());
    let client = client(client_files.clone());
    assert!(!client.reload() && !server.reload(), "nothing changed");
    assert_eq!(meet(&client, &server).await, (Ok(()), Ok(())));

    // The server changes to another CA first, certificate and trust: the client trusts it only after it has read the
    // new CA, and is trusted only with its new certificate.
    let new = next.server(&[NAME], None);
    fs::copy(&new.certificate, &files.certificate).unwrap();
    fs::copy(&new.key, &files.key).unwrap();
    assert!(server.reload());
    assert_refused(meet(&client, &server).await.0, "UnknownIssuer");

    fs::copy(next.ca(), client_files.ca.as_ref().unwrap()).unwrap();
    assert!(client.reload() && server.reload());
    let (asked, served) = meet(&client, &server).await;
    assert!(asked.is_err());
    assert_refused(served, "UnknownIssuer");

    let renewed = next.client(&["torwart-edge"], &next.ca());
    fs::copy(renewed.certificate.unwrap(), client_files.certificate.unwrap()).unwrap();
    fs::copy(renewed.key.unwrap(), client_files.key.unwrap()).unwrap();
    assert!(client.reload());
    assert_eq!(meet(&client, &server).await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn bad_files_are_told_of_once_and_the_last_good_ones_stay() {
    let (lines, _guard) = Lines::start();
    let authority = Authority::new();
    let files = authority.server(&[NAME], None);
    let server = server(files.clone(), &[]);
    let client = client(anonymous(authority.ca()));

    let key = fs::read(&files.key).unwrap();
    let (_, other_key) = authority.issue("other", &[NAME]);
    let bad: [(&str, &dyn Fn()); 4] = [
        ("server.key", &|| fs::write(&files.key, "no key").unwrap()),
        ("must be the first certificate's", &|| assert!(fs::copy(&other_key, &files.key).is_ok())),
        ("server.key: entity not found", &|| fs::remove_file(&files.key).unwrap()),
        ("ca.pem", &|| fs::write(authority.ca(), "no certificate").unwrap()),
    ];
    for (told, spoil) in bad {
        let before = lines.with(told).len();
        spoil();
        for _ in 0..2 {
            assert!(!server.reload() && !client.reload(), "{told}");
        }
        assert_eq!(lines.with(told).len(), before + 1, "{told}: {:?}", lines.with(""));
        assert_eq!(meet(&client, &server).await, (Ok(()), Ok(())), "{told}");
    }
    fs::write(&files.key, key).unwrap();
    assert!(server.reload(), "good again");
    assert_eq!(meet(&client, &server).await, (Ok(()), Ok(())));
}

#[test]
fn every_mistake_in_the_files_is_told_at_once() {
    let authority = Authority::new();
    let nowhere = authority.path("none.pem");
    let (certificate, key) = authority.issue("good", &[NAME]);
    let empty = authority.path("empty.pem");
    fs::write(&empty, "").unwrap();
    let told =
        |mistakes: Vec<TlsFileError>| -> Vec<String> { mistakes.iter().map(ToString::to_string).collect() };

    let files = ClientTlsFiles {
        ca: Some(nowhere.clone()),
        certificate: Some(empty.clone()),
        key: Some(certificate.clone()),
    };
    let mistakes = told(ClientTls::load(files, "not a name").unwrap_err());
    assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    for (text, part) in mistakes.iter().zip(["\"not a name\"", "none.pem", "empty.pem", "good.pem"]) {
        assert!(text.contains(part), "{text} does not say {part}");
    }

    let files = ClientTlsFiles { ca: None, certificate: None, key: Some(key.clone()) };
    let mistakes = told(ClientTls::load(files, NAME).unwrap_err());
    assert!(mistakes.len() == 1 && mistakes[0].contains("give both or none"), "{mistakes:?}");

    let files = ServerTlsFiles { certificate: key.clone(), key: nowhere, client_ca: Some(empty) };
    let mistakes = told(ServerTls::load(files, vec!["10.0.0.1".to_owned()]).unwrap_err());
    assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    for (text, part) in mistakes.iter().zip(["\"10.0.0.1\"", "good.key", "none.pem", "empty.pem"]) {
        assert!(text.contains(part), "{text} does not say {part}");
    }

    let files = ServerTlsFiles { certificate, key, client_ca: None };
    let mistakes = told(ServerTls::load(files, vec!["edge".to_owned()]).unwrap_err());
    assert!(mistakes.len() == 1 && mistakes[0].contains("give the CA too"), "{mistakes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_end_does_not_hold_a_handshake_for_ever() {
    let authority = Authority::new();
    let server = server(authority.server(&[NAME], None), &[]);
    let (there, here) = pair().await;
    assert_eq!(server.accept(here).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(there);
    let (there, _here) = pair().await;
    let client = client(anonymous(authority.ca()));
    assert_eq!(client.connect(there).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn an_end_that_speaks_only_tls_1_2_is_refused() {
    let authority = Authority::new();
    let server = server(authority.server(&[NAME], None), &[]);
    let mut roots = rustls::RootCertStore::empty();
    let ca = fs::read(authority.ca()).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let old = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (there, here) = pair().await;
    let old = tokio_rustls::TlsConnector::from(Arc::new(old));
    let name = ServerName::try_from(NAME).unwrap();
    let (asked, served) = tokio::join!(old.connect(name, there), server.accept(here));
    assert!(asked.is_err() && served.is_err());
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_2_is_refused() {
    let authority = Authority::new();
    let files = authority.server(&[NAME], None);
    let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let other = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let other = tokio_rustls::TlsAcceptor::from(Arc::new(other));
    let client = client(anonymous(authority.ca()));
    let (there, here) = pair().await;
    let (asked, _) = tokio::join!(client.connect(there), other.accept(here));
    assert_refused(asked.map(drop).map_err(|error| error.to_string()), "does not speak HTTP/2");
}
