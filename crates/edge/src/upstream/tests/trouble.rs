//! Upstreams that take a connection and are of no use: they hold up as few transactions as possible.

use super::script::Say;
use super::*;

/// A first upstream with these scripts, and a good one behind it.
async fn mk_pair(first: Vec<Script>) -> (Server, Server, Arc<Route>) {
    let first = Server::start(first).await;
    let second = Server::start(vec![Script::default()]).await;
    let upstreams = vec![mk_upstream(first.address), Upstream { priority: 1, ..mk_upstream(second.address) }];
    let route = mk_route(upstreams, mk_tls(TlsMode::Disabled));
    (first, second, route)
}

fn with_banner(banner: Say) -> Script {
    Script { banner, ..Script::default() }
}

#[tokio::test]
async fn an_upstream_that_could_not_be_opened_is_tried_last_for_a_while() {
    let banners = [
        Say::Silence,
        Say::Close,
        Say::Text("421 4.3.2 busy\r\n"),
        Say::Text("554 no\r\n"),
        Say::Text("SSH-2.0-OpenSSH_9\r\n"),
        Say::Endless("220-aaaaaaaaaaaaaaaa\r\n"),
    ];
    for banner in banners {
        let (first, second, route) = mk_pair(vec![with_banner(banner.clone())]).await;
        let greeting = Duration::from_millis(if matches!(banner, Say::Silence) { 50 } else { 10_000 });
        let world = World::with(UpstreamSettings { greeting, ..UpstreamSettings::default() });
        for _ in 0..5 {
            world.deliver(&route).await.assert_accepted();
        }
        assert_eq!(first.seen().connections, 1, "{banner:?}");
        assert_eq!(second.seen().messages.len(), 5, "{banner:?}");
    }
}

#[tokio::test]
async fn one_transaction_finds_out_whether_an_upstream_is_back_and_the_others_go_on() {
    let scripts = vec![with_banner(Say::Text("421 busy\r\n")), with_banner(Say::Silence), Script::default()];
    let (first, second, route) = mk_pair(scripts).await;
    let world = Arc::new(World::with(UpstreamSettings { ejection: Duration::ZERO, ..Default::default() }));
    world.deliver(&route).await.assert_accepted();
    let prober = tokio::spawn({
        let (world, route) = (world.clone(), route.clone());
        async move { world.deliver(&route).await }
    });
    first.until(|seen| seen.connections == 2).await;
    for _ in 0..5 {
        world.deliver(&route).await.assert_accepted();
    }
    assert_eq!((first.seen().connections, second.seen().messages.len()), (2, 6));
    prober.abort();
    assert!(prober.await.unwrap_err().is_cancelled());
    for count in 1..=3 {
        world.deliver(&route).await.assert_accepted();
        assert_eq!((first.seen().connections, first.seen().messages.len()), (3, count));
    }
}

#[tokio::test]
async fn the_last_upstream_is_never_left_out() {
    let (server, route) = mk_server(vec![with_banner(Say::Text("421 busy\r\n")), Script::default()]).await;
    let world = World::new();
    assert_eq!(world.deliver(&route).await.heard().1, 451);
    world.deliver(&route).await.assert_accepted();

    let (first, second, route) = mk_pair(vec![with_banner(Say::Close), Script::default()]).await;
    world.deliver(&route).await.assert_accepted();
    drop(second);
    world.upstreams.sweep(Instant::now() + Duration::from_secs(60));
    world.deliver(&route).await.assert_accepted();
    assert_eq!(first.seen().messages.len(), 1);
    assert_eq!(server.seen().messages.len(), 1);
}
