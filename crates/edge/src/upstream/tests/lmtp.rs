//! LMTP: another greeting, and one recipient so that there is one final reply (RFC 2033).

use super::script::Say;
use super::*;

fn mk_lmtp(route: &Route) -> Arc<Route> {
    Arc::new(Route { protocol: Protocol::Lmtp, ..route.clone() })
}

#[tokio::test]
async fn lmtp_is_greeted_with_lhlo_and_its_connection_used_again() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world = World::new();
    for _ in 0..2 {
        world.deliver(&mk_lmtp(&route)).await.assert_accepted();
    }
    let seen = server.seen();
    assert_eq!((seen.connections, seen.messages.len()), (1, 2));
    assert_eq!(seen.commands[0], "LHLO gateway.example");
    assert!(!seen.commands.iter().any(|command| command.starts_with("EHLO")));

    // A route that speaks SMTP to the same place does not share it.
    world.deliver(&route).await.assert_accepted();
    assert_eq!(server.seen().connections, 2);
}

#[tokio::test]
async fn an_smtp_server_under_an_lmtp_route_is_a_fault_of_the_configuration() {
    let script = Script { ehlo: Say::Text("500 5.5.1 what?\r\n"), ..Script::default() };
    let (server, route) = mk_server(vec![script]).await;
    let outcome = World::new().deliver(&mk_lmtp(&route)).await;
    assert_eq!(outcome.heard(), ("begin", 451, (4, 3, 5), Reason::UpstreamDeferred));
    assert_eq!(server.seen().commands.first().unwrap(), "LHLO gateway.example");
    assert!(!server.seen().commands.iter().any(|command| command.starts_with("HELO")));
}

#[tokio::test]
async fn the_recipients_final_reply_is_the_clients() {
    for (said, heard) in [
        ("552 5.2.2 mailbox full\r\n", ("dot", 552, (5, 2, 2), Reason::UpstreamRejected)),
        ("452 4.2.2 mailbox full\r\n", ("dot", 452, (4, 2, 2), Reason::UpstreamDeferred)),
    ] {
        let (_server, route) = mk_server(vec![Script { dot: Say::Text(said), ..Script::default() }]).await;
        assert_eq!(World::new().deliver(&mk_lmtp(&route)).await.heard(), heard);
    }
}
