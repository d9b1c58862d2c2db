//! STARTTLS with real handshakes.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use torwart_core::ListenerTls;

use super::harness::{Client, FakeUpstream, Gateway};
use crate::CertificateFiles;

/// Writes a fresh certificate for `name` and returns it.
pub(super) fn issue(folder: &Path, name: &str, files: &CertificateFiles) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    assert!(files.certificate.starts_with(folder));
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    cert.der().clone()
}

pub(super) fn files(folder: &Path, name: &str) -> CertificateFiles {
    CertificateFiles {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

async fn gateway(upstream: &FakeUpstream, certificates: Vec<CertificateFiles>) -> Gateway {
    Gateway::start_with(&[upstream.address], |settings, _| settings.certificates = certificates).await
}

/// Shakes hands, trusting only `certificate`.
pub(super) async fn start_tls(
    mut client: Client<TcpStream>,
    certificate: &CertificateDer<'static>,
    name: &'static str,
) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    client.say("STARTTLS", 220).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(name).unwrap(), client.into_inner())
        .await?;
    Ok(Client::new(stream))
}

#[tokio::test]
async fn a_message_over_tls_says_so_in_received_and_log() {
    let folder = TempDir::new().unwrap();
    let pair = files(folder.path(), "mx");
    let certificate = issue(folder.path(), "mx.example.net", &pair);
    let mut upstream = FakeUpstream::obedient().await;
    let mut gateway = gateway(&upstream, vec![pair]).await;
    let mut client = gateway.client().await;
    assert!(client.say("EHLO client.example", 250).await.contains("STARTTLS"));
    let mut client = start_tls(client, &certificate, "mx.example.net").await.unwrap();
    client.say("MAIL FROM:<a@example.com>", 503).await;
    assert!(!client.say("EHLO again.example", 250).await.contains("STARTTLS"));
    client.say("MAIL FROM:<a@example.com>", 250).await;
    client.say("RCPT TO:<ok@example.org>", 250).await;
    client.say("DATA", 354).await;
    client.say("body\r\n.", 250).await;
    client.say("QUIT", 221).await;
    let message = upstream.message().await;
    assert!(message.contains("from again.example ") && message.contains(" with ESMTPS id "), "{message}");
    let line = gateway.line().await;
    assert_eq!(line["tls"], "TLSv1.3 TLS13_AES_256_GCM_SHA384");
    assert_eq!(line["helo"], "again.example");
}

#[tokio::test]
async fn an_address_range_can_require_or_hide_tls() {
    let folder = TempDir::new().unwrap();
    let pair = files(folder.path(), "mx");
    issue(folder.path(), "mx.example.net", &pair);
    for (tls, offered, code) in [(ListenerTls::Require, true, 530), (ListenerTls::Hide, false, 250)] {
        let gateway = Gateway::start_with(&[], |settings, script| {
            settings.certificates = vec![pair.clone()];
            script.tls = tls;
        })
        .await;
        let mut client = gateway.client().await;
        assert_eq!(client.say("EHLO client.example", 250).await.contains("STARTTLS"), offered, "{tls:?}");
        client.say("MAIL FROM:<a@example.com>", code).await;
    }
}

#[tokio::test]
async fn commands_behind_starttls_end_the_session() {
    let folder = TempDir::new().unwrap();
    let pair = files(folder.path(), "mx");
    issue(folder.path(), "mx.example.net", &pair);
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = gateway(&upstream, vec![pair]).await;
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    client.send("STARTTLS\r\nMAIL FROM:<injected@example.com>\r\n").await;
    client.expect(220).await;
    assert!(client.is_closed().await);
    assert_eq!(gateway.line().await["outcome"], "tls_injection");
    assert!(gateway.counts(r#"torwart_smtp_sessions_total{outcome="tls_injection"} 1"#));
}

#[tokio::test]
async fn what_is_no_handshake_ends_the_session() {
    let folder = TempDir::new().unwrap();
    let pair = files(folder.path(), "mx");
    issue(folder.path(), "mx.example.net", &pair);
    let upstream = FakeUpstream::obedient().await;
    let mut gateway = gateway(&upstream, vec![pair]).await;
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    client.say("STARTTLS", 220).await;
    client.send("MAIL FROM:<plain@example.com>\r\n").await;
    assert_eq!(gateway.line().await["outcome"], "tls_failed");
}

#[tokio::test]
async fn the_name_asked_for_picks_the_certificate() {
    let folder = TempDir::new().unwrap();
    let pairs = ["one.example", "two.example"].map(|name| files(folder.path(), name));
    let one = issue(folder.path(), "one.example", &pairs[0]);
    let two = issue(folder.path(), "two.example", &pairs[1]);
    let upstream = FakeUpstream::obedient().await;
    let gateway = gateway(&upstream, pairs.to_vec()).await;
    for (certificate, name) in [(&one, "one.example"), (&two, "two.example")] {
        let mut client = gateway.client().await;
        client.say("EHLO client.example", 250).await;
        start_tls(client, certificate, name).await.unwrap().say("EHLO client.example", 250).await;
    }
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    assert!(
        start_tls(client, &one, "three.example").await.is_err(),
        "the first certificate does not carry this name"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_offered_and_the_metrics_say_since_when() {
    let folder = TempDir::new().unwrap();
    let pair = files(folder.path(), "mx");
    let mut params = CertificateParams::new(vec!["mx.example.net".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().unwrap();
    std::fs::write(&pair.key, key.serialize_pem()).unwrap();
    std::fs::write(&pair.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    let upstream = FakeUpstream::obedient().await;
    let gateway = gateway(&upstream, vec![pair.clone()]).await;
    assert!(gateway.counts(r#"torwart_tls_certificate_not_after_seconds{certificate="0"} 1609459200"#));
    let mut client = gateway.client().await;
    assert!(client.say("EHLO client.example", 250).await.contains("STARTTLS"));
    issue(folder.path(), "mx.example.net", &pair);
    gateway.edge.reload_certificates();
    assert!(!gateway.counts(r#"torwart_tls_certificate_not_after_seconds{certificate="0"} 1609459200"#));
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_bad_one_is_not() {
    let folder = TempDir::new().unwrap();
    let pair = files(folder.path(), "mx");
    issue(folder.path(), "mx.example.net", &pair);
    let upstream = FakeUpstream::obedient().await;
    let gateway = gateway(&upstream, vec![pair.clone()]).await;
    let renewed = issue(folder.path(), "mx.example.net", &pair);
    gateway.edge.reload_certificates();
    let greet = async |gateway: &Gateway| {
        let mut client = gateway.client().await;
        client.say("EHLO client.example", 250).await;
        start_tls(client, &renewed, "mx.example.net").await
    };
    greet(&gateway).await.unwrap().say("NOOP", 250).await;
    std::fs::write(&pair.certificate, "not a certificate").unwrap();
    gateway.edge.reload_certificates();
    greet(&gateway).await.unwrap().say("NOOP", 250).await;
    std::fs::remove_file(&pair.key).unwrap();
    gateway.edge.reload_certificates();
    greet(&gateway).await.unwrap().say("NOOP", 250).await;
}
