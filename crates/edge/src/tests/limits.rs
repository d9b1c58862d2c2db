//! Connections that are too many, that say nothing, or that come through a proxy.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Client, Gateway, Script, mail_log, soon};
use crate::{CertificateFiles, Edge, Settings};

async fn connect(gateway: &Gateway) -> Client<TcpStream> {
    Client::new(TcpStream::connect(gateway.address()).await.unwrap())
}

#[tokio::test]
async fn connections_over_the_limit_hear_421_and_places_come_back() {
    for (max_connections, max_network) in [(1, 100), (100, 1)] {
        let mut gateway = Gateway::start_with(&[], |settings, _| {
            settings.max_connections = max_connections;
            settings.max_connections_per_network = max_network;
        })
        .await;
        let mut first = gateway.client().await;
        let mut second = connect(&gateway).await;
        assert!(second.expect(421).await.starts_with("421 4.7.0 "));
        assert_eq!(gateway.line().await["outcome"], "connection_limit");
        assert!(gateway.counts(r#"torwart_smtp_sessions_total{outcome="connection_limit"} 1"#));
        assert!(gateway.counts("torwart_smtp_connections 1"));
        first.say("QUIT", 221).await;
        assert!(first.is_closed().await);
        assert_eq!(gateway.line().await["outcome"], "quit");
        // the place is free once the session's task is gone, which the log line precedes
        loop {
            let mut again = connect(&gateway).await;
            again.send("QUIT\r\n").await;
            if gateway.line().await["outcome"] == "quit" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn every_mistake_in_the_settings_is_reported_at_once() {
    let taken = Gateway::start(&[]).await.address();
    let registry = prometheus::Registry::new();
    let (log, _writer, _lines) = mail_log(&registry);
    let missing =
        CertificateFiles { certificate: "/nonexistent/c.pem".into(), key: "/nonexistent/k.pem".into() };
    let settings =
        Settings { listen: vec![taken, taken], certificates: vec![missing], ..Settings::default() };
    let verdicts = Arc::new(Script::new(&[]).0);
    let Err(mistakes) = Edge::bind(settings, verdicts, log, &registry) else { panic!("it was bound") };
    let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown[0].starts_with(&format!("--smtp-listen {taken}: ")), "{shown:?}");
    assert!(shown[2].starts_with("--tls-cert/--tls-key: /nonexistent/c.pem: "), "{shown:?}");
}

#[tokio::test]
async fn a_connection_without_a_byte_is_a_probe() {
    let mut gateway = Gateway::start(&[]).await;
    drop(gateway.client().await);
    let line = gateway.line().await;
    assert_eq!(
        (&line["event"], &line["outcome"], &line["client"]),
        (&"session".into(), &"probe".into(), &"127.0.0.1".into())
    );
    let mut talker = gateway.client().await;
    talker.say("NOOP", 250).await;
    drop(talker);
    assert_eq!(gateway.line().await["outcome"], "client_gone");
}

#[tokio::test]
async fn too_many_errors_end_the_session_with_421() {
    let mut gateway = Gateway::start(&[]).await;
    let mut client = gateway.client().await;
    client.send(&"NONSENSE\r\n".repeat(50)).await;
    for _ in 0..5 {
        client.expect(500).await;
    }
    client.expect(421).await;
    assert!(client.is_closed().await);
    assert_eq!(gateway.line().await["outcome"], "violation");
}

#[tokio::test]
async fn a_proxy_names_the_client_and_the_session_goes_on_behind_its_header() {
    let mut gateway = Gateway::start_with(&[], |settings, _| {
        settings.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
        settings.max_connections_per_network = 1;
    })
    .await;
    let mut client = connect(&gateway).await;
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\nEHLO early.example\r\n").await;
    client.expect(220).await;
    client.expect(250).await;
    // the limit counts the client's network, not the proxy's
    let mut same_network = connect(&gateway).await;
    same_network.send("PROXY TCP4 192.0.2.9 192.0.2.1 4711 25\r\n").await;
    same_network.expect(421).await;
    assert_eq!(gateway.line().await["client"], "192.0.2.9");
    let mut other_network = connect(&gateway).await;
    other_network.send("PROXY TCP4 198.51.100.9 192.0.2.1 4711 25\r\n").await;
    other_network.expect(220).await;
    client.say("QUIT", 221).await;
    let line = gateway.line().await;
    assert_eq!((&line["client"], &line["client_port"]), (&"192.0.2.7".into(), &4711.into()));
}

#[tokio::test]
async fn a_proxied_client_that_is_too_many_hears_421_and_no_reset() {
    for (max_connections, max_network) in [(1, 100), (100, 1)] {
        let mut gateway = Gateway::start_with(&[], |settings, _| {
            settings.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
            settings.max_connections = max_connections;
            settings.max_connections_per_network = max_network;
        })
        .await;
        let header = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n";
        let mut first = connect(&gateway).await;
        first.send(header).await;
        first.expect(220).await;
        // everything is there before the gateway, which runs in this thread, can accept
        let mut second = std::net::TcpStream::connect(gateway.address()).unwrap();
        let ahead = format!("{header}{}", "NOOP\r\n".repeat(5000));
        std::io::Write::write_all(&mut second, ahead.as_bytes()).unwrap();
        second.set_nonblocking(true).unwrap();
        let mut second = TcpStream::from_std(second).unwrap();
        let mut said = String::new();
        soon(second.read_to_string(&mut said)).await.unwrap();
        assert!(said.starts_with("421 4.7.0 "), "{said:?}");
        assert_eq!(gateway.line().await["outcome"], "connection_limit");
    }
}

#[tokio::test]
async fn a_proxy_that_sends_no_header_gets_no_session() {
    let mut gateway = Gateway::start_with(&[], |settings, _| {
        settings.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let mut client = connect(&gateway).await;
    client.send("EHLO client.example\r\n").await;
    assert!(client.is_closed().await);
    assert_eq!(gateway.line().await["outcome"], "proxy_fault");
    let mut cut = connect(&gateway).await.into_inner();
    cut.write_all(b"PROXY TCP4 192.0.2").await.unwrap();
    drop(cut);
    assert_eq!(gateway.line().await["outcome"], "proxy_fault");
    drop(connect(&gateway).await);
    assert_eq!(gateway.line().await["outcome"], "probe");
}

#[tokio::test]
async fn a_health_check_of_the_proxy_is_the_proxy_s_own_session() {
    let mut gateway = Gateway::start_with(&[], |settings, _| {
        settings.proxy_protocol_from = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").await.unwrap();
    let mut client = Client::new(stream);
    client.expect(220).await;
    client.say("QUIT", 221).await;
    let line = gateway.line().await;
    assert_eq!((&line["client"], &line["outcome"]), (&"127.0.0.1".into(), &"quit".into()));
}

#[tokio::test]
async fn a_header_from_a_stranger_is_no_command() {
    let gateway = Gateway::start(&[]).await;
    let mut client = gateway.client().await;
    client.say("PROXY TCP4 192.0.2.7 192.0.2.1 4711 25", 500).await;
}
