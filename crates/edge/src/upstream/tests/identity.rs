//! Who the client is, passed on: said before MAIL, on a connection of its own, or no mail at all.

use super::script::{OK, Say};
use super::*;

const MISCONFIGURED: (&str, u16, (u8, u16, u16), Reason) =
    ("begin", 451, (4, 3, 5), Reason::UpstreamDeferred);
const OFFER: &str = "250-mx.example\r\n250-PIPELINING\r\n250-XCLIENT NAME ADDR PORT PROTO HELO\r\n\
                     250 XFORWARD NAME ADDR PORT PROTO HELO\r\n";

fn mk_identity(route: &Route, client_identity: ClientIdentity) -> Arc<Route> {
    Arc::new(Route { client_identity, ..route.clone() })
}

fn offering() -> Script {
    Script { ehlo: Say::Text(OFFER), ..Script::default() }
}

fn for_xforward() -> Script {
    Script { identity: OK, ..offering() }
}

fn for_proxy() -> Script {
    Script { proxied: true, ..Script::default() }
}

#[tokio::test]
async fn xclient_is_followed_by_an_ehlo_in_the_clients_name() {
    let (server, route) = mk_server(vec![offering()]).await;
    World::new().deliver(&mk_identity(&route, ClientIdentity::Xclient)).await.assert_accepted();
    assert_eq!(
        server.seen().commands[..4],
        [
            "EHLO gateway.example",
            "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=4321 PROTO=ESMTP HELO=client.example",
            "EHLO client.example",
            "MAIL FROM:<sender@example.com>",
        ]
    );
}

#[tokio::test]
async fn xforward_is_answered_before_mail_is_said() {
    let (server, route) = mk_server(vec![for_xforward()]).await;
    World::new().deliver(&mk_identity(&route, ClientIdentity::Xforward)).await.assert_accepted();
    let seen = server.seen();
    assert_eq!(
        seen.commands[1],
        "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=4321 PROTO=ESMTP HELO=client.example"
    );
    let alone = |read: &Vec<u8>| {
        read.starts_with(b"XFORWARD ") && read.iter().filter(|byte| **byte == b'\n').count() == 1
    };
    assert!(seen.reads.iter().any(alone), "{:?}", seen.reads);
}

#[tokio::test]
async fn the_proxy_header_comes_before_everything_else() {
    let (server, route) = mk_server(vec![for_proxy()]).await;
    World::new().deliver(&mk_identity(&route, ClientIdentity::ProxyV2)).await.assert_accepted();
    let header = server.seen().headers.remove(0);
    // Version 2, PROXY; TCP over IPv4; 12 octets of addresses, the client's first.
    assert_eq!(header[12..16], [0x21, 0x11, 0, 12]);
    assert_eq!(header[16..20], [192, 0, 2, 1]);
    assert_eq!(header[24..26], 4321u16.to_be_bytes());
}

#[tokio::test]
async fn a_connection_that_knows_its_client_serves_no_other() {
    for (identity, script) in [
        (ClientIdentity::Xclient, offering()),
        (ClientIdentity::Xforward, for_xforward()),
        (ClientIdentity::ProxyV2, for_proxy()),
    ] {
        let (server, route) = mk_server(vec![script]).await;
        let (world, route) = (World::new(), mk_identity(&route, identity));
        for _ in 0..2 {
            world.deliver(&route).await.assert_accepted();
            assert_eq!(world.idle(), 0, "{identity:?}");
        }
        // Nor what was given up before DATA.
        world.begin(&route).await.unwrap().0.abandon();
        server.until(|seen| seen.closed == 3).await;
        assert_eq!((server.seen().connections, world.idle()), (3, 0), "{identity:?}");
    }
}

#[tokio::test]
async fn where_it_is_not_taken_there_is_no_silent_fallback() {
    let refusing = |say: &'static str| Script { identity: Say::Text(say), ..offering() };
    let rows = [
        (ClientIdentity::Xclient, Script::default()),
        (ClientIdentity::Xforward, Script::default()),
        (ClientIdentity::Xclient, refusing("550 5.7.0 insufficient authorization\r\n")),
        (ClientIdentity::Xforward, refusing("550 5.7.0 insufficient authorization\r\n")),
        (ClientIdentity::Xclient, refusing("501 5.5.4 bad syntax\r\n")),
        (ClientIdentity::Xforward, refusing("451 4.3.0 later\r\n")),
    ];
    for (identity, script) in rows {
        let (server, route) = mk_server(vec![script]).await;
        let world = World::new();
        assert_eq!(
            world.deliver(&mk_identity(&route, identity)).await.heard(),
            MISCONFIGURED,
            "{identity:?}"
        );
        assert!(!server.seen().commands.iter().any(|command| command.starts_with("MAIL")), "{identity:?}");
        assert_eq!(world.failures(), [(FailureKind::Refused, 1)], "{identity:?}");

        // The next upstream does take it.
        let answer = if identity == ClientIdentity::Xforward { for_xforward() } else { offering() };
        let next = Server::start(vec![answer]).await;
        let upstreams =
            vec![mk_upstream(server.address), Upstream { priority: 1, ..mk_upstream(next.address) }];
        let both = mk_identity(&mk_route(upstreams, mk_tls(TlsMode::Disabled)), identity);
        World::new().deliver(&both).await.assert_accepted();
        assert_eq!(next.seen().messages.len(), 1, "{identity:?}");
    }
}

/// Else one bad client could send everybody's mail to the second choice.
#[tokio::test]
async fn an_upstream_that_refuses_one_client_is_the_first_choice_for_the_next() {
    let refusing = Script { identity: Say::Text("554 5.7.1 this client is blocked\r\n"), ..offering() };
    let first = Server::start(vec![refusing, offering()]).await;
    let second = Server::start(vec![offering()]).await;
    let upstreams = vec![mk_upstream(first.address), Upstream { priority: 1, ..mk_upstream(second.address) }];
    let route = mk_identity(&mk_route(upstreams, mk_tls(TlsMode::Disabled)), ClientIdentity::Xclient);
    let world = World::new();
    world.deliver(&route).await.assert_accepted();
    world.deliver(&route).await.assert_accepted();
    assert_eq!((first.seen().messages.len(), second.seen().messages.len()), (1, 1));
}

/// As with a Postfix that does not expect the header: it is a command that nobody knows, and so is each of its lines.
#[tokio::test]
async fn a_server_that_expects_no_proxy_header_gets_no_mail() {
    let script =
        Script { banner: Say::Last("220 mx.example ESMTP\r\n500 5.5.2 bad\r\n"), ..Script::default() };
    let (server, route) = mk_server(vec![script]).await;
    let outcome = World::new().deliver(&mk_identity(&route, ClientIdentity::ProxyV2)).await;
    let (step, code, ..) = outcome.heard();
    assert_eq!((step, code), ("begin", 451));
    assert!(server.seen().messages.is_empty());
}
