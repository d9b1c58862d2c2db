use super::script::{OK, Say};
use super::*;

#[tokio::test]
async fn a_connection_serves_one_transaction_after_the_other() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world = World::new();
    for count in 1..=5 {
        world.deliver(&route).await.assert_accepted();
        assert_eq!((world.idle(), world.active()), (1, 0));
        assert_eq!(server.seen().messages.len(), count);
    }
    let seen = server.seen();
    assert_eq!(seen.connections, 1);
    assert!(!seen.commands.iter().any(|command| command == "RSET"), "none is needed after a dot");
}

#[tokio::test]
async fn a_transaction_on_an_open_connection_costs_three_writes() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world = World::new();
    let body = "ten kilobytes of mail\r\n".repeat(450);
    world.deliver_to(&route, &[RECIPIENT], body.as_bytes()).await.assert_accepted();
    let before = server.seen().reads.len();
    world.deliver_to(&route, &[RECIPIENT], body.as_bytes()).await.assert_accepted();
    let reads = &server.seen().reads[before..];
    assert!(reads[0].starts_with(b"MAIL FROM:") && reads[0].ends_with(b"RCPT TO:<user@example.org>\r\n"));
    assert_eq!(reads[1], b"DATA\r\n");
    assert!(reads[2..].concat().ends_with(b"\r\n.\r\n"));
}

#[tokio::test]
async fn a_connection_is_closed_after_its_last_transaction() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world = World::with(UpstreamSettings { transactions: 2, ..UpstreamSettings::default() });
    for _ in 0..5 {
        world.deliver(&route).await.assert_accepted();
    }
    assert_eq!(server.seen().connections, 3);
    server.until(|seen| seen.commands.iter().filter(|command| *command == "QUIT").count() == 2).await;
}

#[tokio::test]
async fn a_reused_connection_that_dies_before_its_answer_to_mail_is_replaced_unseen() {
    for fault in [Say::Close, Say::Last("421 4.4.2 timeout\r\n")] {
        let dying = Script { mail: vec![OK, fault], ..Script::default() };
        let (server, route) = mk_server(vec![dying, Script::default()]).await;
        let world = World::new();
        world.deliver(&route).await.assert_accepted();
        world.deliver(&route).await.assert_accepted();
        assert_eq!(server.seen().connections, 2);
        assert_eq!(server.seen().messages.len(), 2);
        assert_eq!(world.failures(), [(FailureKind::Closed, 1)]);
    }
}

#[tokio::test]
async fn it_is_replaced_once() {
    let dying = Script { mail: vec![OK, Say::Close], ..Script::default() };
    let dead = Script { mail: vec![Say::Close], ..Script::default() };
    let (server, route) = mk_server(vec![dying, dead]).await;
    let world = World::new();
    world.deliver(&route).await.assert_accepted();
    assert_eq!(world.deliver(&route).await.heard(), ("begin", 451, (4, 4, 2), Reason::UpstreamUnreachable));
    assert_eq!(server.seen().connections, 2);
    assert_eq!(world.failures(), [(FailureKind::Closed, 2)]);
}

#[tokio::test]
async fn a_reused_connection_that_refuses_is_not_replaced() {
    let refusing = Script { mail: vec![OK, Say::Text("550 5.7.1 no\r\n")], ..Script::default() };
    let (server, route) = mk_server(vec![refusing]).await;
    let world = World::new();
    world.deliver(&route).await.assert_accepted();
    assert_eq!(world.deliver(&route).await.heard(), ("begin", 550, (5, 7, 1), Reason::UpstreamRejected));
    assert_eq!(server.seen().connections, 1);
    assert_eq!(world.idle(), 0);
}

#[tokio::test]
async fn an_idle_connection_that_closes_or_speaks_is_not_used() {
    for chatter in [Say::Close, Say::Last("421 4.4.2 idle too long\r\n"), Say::Text("250 hello again\r\n")] {
        let talking = Script { chatter: Some(chatter.clone()), ..Script::default() };
        let (server, route) = mk_server(vec![talking, Script::default()]).await;
        let world = World::new();
        world.deliver(&route).await.assert_accepted();
        server.until(|seen| seen.chattered || seen.closed == 1).await;
        // One turn of the reactor, which has the event by now.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let outcome = world.deliver(&route).await;
        let seen = server.seen();
        assert!(
            matches!(outcome, Outcome::Final(Final::Accepted { .. })),
            "{chatter:?}: {outcome:?} {seen:?}"
        );
        assert_eq!(seen.messages.len(), 2, "{chatter:?}");
        assert_eq!(seen.connections, 2, "{chatter:?}");
    }
}

#[tokio::test]
async fn idle_connections_are_closed_in_time_with_a_quit() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world =
        World::with(UpstreamSettings { idle: Duration::from_millis(20), ..UpstreamSettings::default() });
    for _ in 0..2 {
        let quits = server.seen().commands.iter().filter(|command| *command == "QUIT").count();
        world.deliver(&route).await.assert_accepted();
        world.eventually(|world| world.idle() == 0).await;
        server
            .until(|seen| seen.commands.iter().filter(|command| *command == "QUIT").count() == quits + 1)
            .await;
    }
}

#[tokio::test]
async fn what_is_given_up_before_data_is_reset_and_the_connection_kept() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world = World::new();
    let (relay, _) = world.begin(&route).await.unwrap();
    assert_eq!(relay.upstream(), server.address.to_string());
    assert_eq!((world.active(), world.idle()), (1, 0));
    relay.abandon();
    world.eventually(|world| (world.active(), world.idle()) == (0, 1)).await;
    world.deliver(&route).await.assert_accepted();
    assert_eq!(server.seen().connections, 1);
    let verbs: Vec<String> = server.seen().commands.iter().map(|c| c[..4].to_owned()).collect();
    assert_eq!(verbs, ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]);
}

#[tokio::test]
async fn a_refused_or_unanswered_reset_ends_the_connection() {
    for rset in [Say::Text("500 no\r\n"), Say::Close, Say::Silence, Say::Text("354 what\r\n")] {
        let (_server, route) = mk_server(vec![Script { rset, ..Script::default() }]).await;
        let world = World::with(UpstreamSettings { reset: Duration::from_millis(100), ..Default::default() });
        let (relay, _) = world.begin(&route).await.unwrap();
        relay.abandon();
        world.eventually(|world| (world.active(), world.idle()) == (0, 0)).await;
    }
}

#[tokio::test]
async fn what_is_given_up_inside_the_message_gets_no_dot() {
    for dropped in [false, true] {
        let (server, route) = mk_server(vec![Script::default()]).await;
        let world = World::new();
        let (mut relay, _) = world.begin(&route).await.unwrap();
        relay.data(Instant::now() + Duration::from_secs(20)).await.unwrap();
        relay.body(&b"half a message\r\n".repeat(10_000), None).await.unwrap();
        if dropped {
            drop(relay)
        } else {
            relay.abandon()
        }
        server.until(|seen| seen.closed == 1).await;
        assert!(server.seen().messages.is_empty());
        assert_eq!((world.active(), world.idle()), (0, 0));
    }
}

#[tokio::test]
async fn a_busy_upstream_is_waited_for_and_then_deferred() {
    let (server, _) = mk_server(vec![Script::default()]).await;
    let upstream = Upstream { max_connections: 1, ..mk_upstream(server.address) };
    let route = mk_route(vec![upstream], mk_tls(TlsMode::Disabled));
    let world =
        World::with(UpstreamSettings { busy: Duration::from_millis(50), ..UpstreamSettings::default() });
    let (relay, _) = world.begin(&route).await.unwrap();
    let outcome = world.deliver(&route).await;
    assert_eq!(outcome.heard(), ("begin", 451, (4, 4, 5), Reason::UpstreamBusy));
    assert_eq!(world.failures(), [(FailureKind::Busy, 1)]);
    drop(relay);
    world.deliver(&route).await.assert_accepted();
}

#[tokio::test]
async fn active_and_idle_connections_never_exceed_the_limit() {
    let (server, _) = mk_server(vec![Script::default()]).await;
    let upstream = Upstream { max_connections: 2, ..mk_upstream(server.address) };
    let one = mk_route(vec![upstream.clone()], mk_tls(TlsMode::Disabled));
    // The same upstream with other settings: its connections are not interchangeable, the limit is one.
    let other = mk_route(vec![upstream], mk_tls(TlsMode::Opportunistic));
    let world = World::new();
    let deliveries = (0..20).map(|turn| world.deliver(if turn % 3 == 0 { &other } else { &one }));
    let within = || assert!(world.active() + world.idle() <= 2, "{} + {}", world.active(), world.idle());
    join_all(deliveries, within).await.iter().for_each(Outcome::assert_accepted);
    assert_eq!(server.seen().messages.len(), 20);
    assert_eq!((world.active(), world.idle()), (0, 2));
}

#[tokio::test]
async fn idle_connections_in_all_are_bounded() {
    let (_server, route) = mk_server(vec![Script::default()]).await;
    let world = World::with(UpstreamSettings { max_idle: 1, ..UpstreamSettings::default() });
    let outcomes = join_all((0..4).map(|_| world.deliver(&route)), || {}).await;
    outcomes.iter().for_each(Outcome::assert_accepted);
    assert_eq!(world.idle(), 1);
}

#[tokio::test]
async fn upstreams_that_no_route_names_any_more_are_forgotten() {
    let world = World::new();
    for port in 1..=3000 {
        world.upstreams.gate(&mk_upstream(SocketAddr::from(([192, 0, 2, 1], port))));
    }
    assert!(world.upstreams.registry().gates.len() <= GATES);
}

/// Runs them all at once; `check` is called after each step of one.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>, check: impl Fn()) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut running {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *output = Some(value);
            }
            check();
        }
        if running.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
