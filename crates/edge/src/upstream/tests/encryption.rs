use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::script::{EHLO, EHLO_TLS, Say};
use super::*;

/// A server that can encrypt, and the CA (PEM) that vouches for its name, `mx.example`.
fn mk_certified() -> (TlsAcceptor, Arc<str>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["mx.example".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca.pem().into())
}

fn mk_script(acceptor: &TlsAcceptor) -> Script {
    Script { ehlo: Say::Text(EHLO_TLS), acceptor: Some(acceptor.clone()), ..Script::default() }
}

fn required(ca: Option<Arc<str>>, name: Option<&str>) -> UpstreamTls {
    UpstreamTls { ca, server_name: name.map(Arc::from), ..mk_tls(TlsMode::Required) }
}

const INSECURE: (&str, u16, (u8, u16, u16), Reason) = ("begin", 451, (4, 7, 5), Reason::UpstreamTls);

#[tokio::test]
async fn opportunistic_takes_any_certificate() {
    let (acceptor, _) = mk_certified();
    let (server, route) = mk_server(vec![mk_script(&acceptor)]).await;
    let world = World::new();
    for _ in 0..3 {
        world.deliver(&route).await.assert_accepted();
    }
    let seen = server.seen();
    assert_eq!((seen.connections, seen.encrypted, seen.messages.len()), (1, 1, 3));
    assert_eq!(world.failures(), []);
}

#[tokio::test]
async fn required_takes_the_right_name_from_the_right_ca_and_nothing_else() {
    let (acceptor, ca) = mk_certified();
    let (_, strange_ca) = mk_certified();
    let rows = [
        ("right", required(Some(ca.clone()), Some("mx.example")), true),
        ("wrong name", required(Some(ca.clone()), Some("other.example")), false),
        ("address instead of name", required(Some(ca.clone()), None), false),
        ("strange CA", required(Some(strange_ca), Some("mx.example")), false),
        ("public roots", required(None, Some("mx.example")), false),
        ("empty CA", required(Some("".into()), Some("mx.example")), false),
        ("impossible name", required(Some(ca), Some("not a name")), false),
    ];
    for (name, tls, passes) in rows {
        for implicit in [false, true] {
            let script = Script { implicit, ..mk_script(&acceptor) };
            let server = Server::start(vec![script]).await;
            let route = mk_route(vec![mk_upstream(server.address)], UpstreamTls { implicit, ..tls.clone() });
            let world = World::new();
            let outcome = world.deliver(&route).await;
            if passes {
                outcome.assert_accepted();
                assert_eq!(server.seen().encrypted, 1, "{name}");
            } else {
                assert_eq!(outcome.heard(), INSECURE, "{name}");
                assert_eq!(world.failures(), [(FailureKind::Tls, 1)], "{name}");
                let seen = server.seen();
                assert!(!seen.commands.iter().any(|command| command.starts_with("MAIL")), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn required_without_an_offer_is_451_4_7_5() {
    let script = Script { ehlo: Say::Text(EHLO), ..Script::default() };
    let server = Server::start(vec![script]).await;
    let world = World::new();
    let outcome = world.deliver(&mk_route(vec![mk_upstream(server.address)], required(None, None))).await;
    assert_eq!(outcome.heard(), INSECURE);
    assert_eq!(world.failures(), [(FailureKind::Tls, 1)]);
}

#[tokio::test]
async fn opportunistic_falls_back_to_clear_text_and_remembers() {
    let (acceptor, _) = mk_certified();
    for start_tls in [Say::Last("220 go ahead\r\n"), Say::LastAfter("220 go ahead\r\n", "no handshake")] {
        let script = Script { start_tls: start_tls.clone(), ..mk_script(&acceptor) };
        let (server, route) = mk_server(vec![script]).await;
        let world = World::with(UpstreamSettings { transactions: 1, ..UpstreamSettings::default() });
        world.deliver(&route).await.assert_accepted();
        world.deliver(&route).await.assert_accepted();
        let seen = server.seen();
        assert_eq!(seen.encrypted, 0, "{start_tls:?}");
        assert_eq!(seen.commands.iter().filter(|command| *command == "STARTTLS").count(), 1, "{start_tls:?}");
        assert_eq!((seen.connections, seen.messages.len()), (3, 2), "{start_tls:?}");
        assert_eq!(world.failures(), [(FailureKind::Tls, 1)], "{start_tls:?}");
    }
}

#[tokio::test]
async fn a_failed_handshake_is_forgotten_in_time() {
    let (acceptor, _) = mk_certified();
    let script = Script { start_tls: Say::Last("220 go ahead\r\n"), ..mk_script(&acceptor) };
    let (server, route) = mk_server(vec![script, Script::default(), mk_script(&acceptor)]).await;
    let settings =
        UpstreamSettings { transactions: 1, clear_text: Duration::ZERO, ..UpstreamSettings::default() };
    let world = World::with(settings);
    world.deliver(&route).await.assert_accepted();
    assert_eq!(server.seen().encrypted, 0);
    world.deliver(&route).await.assert_accepted();
    assert_eq!(server.seen().encrypted, 1);
}

#[tokio::test]
async fn opportunistic_goes_on_in_clear_text_where_starttls_is_refused() {
    let (acceptor, _) = mk_certified();
    let script =
        Script { start_tls: Say::Text("454 4.7.0 no TLS today\r\n"), acceptor: None, ..mk_script(&acceptor) };
    let (server, route) = mk_server(vec![script]).await;
    let world = World::new();
    world.deliver(&route).await.assert_accepted();
    let seen = server.seen();
    assert_eq!((seen.connections, seen.encrypted), (1, 0));
    assert_eq!(world.failures(), []);
}

#[tokio::test]
async fn required_never_falls_back() {
    let (acceptor, ca) = mk_certified();
    for start_tls in
        [Say::LastAfter("220 go ahead\r\n", "no handshake"), Say::Text("454 4.7.0 no TLS today\r\n")]
    {
        let script = Script { start_tls, ..mk_script(&acceptor) };
        let server = Server::start(vec![script]).await;
        let route =
            mk_route(vec![mk_upstream(server.address)], required(Some(ca.clone()), Some("mx.example")));
        let outcome = World::new().deliver(&route).await;
        assert_eq!(outcome.heard(), ("begin", 451, (4, 7, 5), Reason::UpstreamTls));
        let seen = server.seen();
        assert_eq!(seen.connections, 1);
        assert!(!seen.commands.iter().any(|command| command.starts_with("MAIL")));
    }
}

/// RFC 3207 section 4.2: an attacker in the middle puts replies behind the 220.
#[tokio::test]
async fn replies_before_the_handshake_do_not_count_after_it() {
    let (acceptor, ca) = mk_certified();
    let script = Script {
        start_tls: Say::Text("220 go ahead\r\n250-mx.example\r\n250 PIPELINING\r\n250 ok\r\n"),
        ..mk_script(&acceptor)
    };
    let server = Server::start(vec![script]).await;
    let route = mk_route(vec![mk_upstream(server.address)], required(Some(ca), Some("mx.example")));
    let world = World::new();
    let outcome = world.deliver(&route).await;
    assert_eq!(outcome.heard(), ("begin", 451, (4, 5, 0), Reason::UpstreamDeferred));
    assert_eq!(world.failures(), [(FailureKind::Protocol, 1)]);
}

#[tokio::test]
async fn disabled_never_asks_for_tls() {
    let (acceptor, _) = mk_certified();
    let server = Server::start(vec![mk_script(&acceptor)]).await;
    let route = mk_route(vec![mk_upstream(server.address)], mk_tls(TlsMode::Disabled));
    World::new().deliver(&route).await.assert_accepted();
    assert!(!server.seen().commands.iter().any(|command| command == "STARTTLS"));
}

#[tokio::test]
async fn a_large_message_and_an_early_answer_pass_through_tls() {
    let (acceptor, _) = mk_certified();
    let body = "a line of a large message\r\n".repeat(500_000).into_bytes();
    let (server, route) = mk_server(vec![mk_script(&acceptor)]).await;
    World::new().deliver_to(&route, &[RECIPIENT], &body).await.assert_accepted();
    assert!(server.seen().messages[0] == body);

    let early =
        Script { early: Some((10_000, Say::Text("552 5.3.4 too large\r\n"))), ..mk_script(&acceptor) };
    let (_server, route) = mk_server(vec![early]).await;
    let outcome = World::new().deliver_to(&route, &[RECIPIENT], &body).await;
    assert_eq!(outcome.heard(), ("body", 552, (5, 3, 4), Reason::UpstreamRejected));
}
