//! What a route with a mistake in it does to mail: nothing that lasts.

use super::script::Say;
use super::*;

fn mk_soft(route: &Route, number: u8, soft_bounce: SoftBounce) -> Arc<Route> {
    Arc::new(Route { digest: RouteDigest([number; 16]), soft_bounce, ..route.clone() })
}

/// One refusal at each step that may pass one on.
fn refusals() -> [(&'static str, Script); 3] {
    let no = || Say::Text("554 5.7.1 relay access denied\r\n");
    [
        ("begin", Script { mail: vec![no()], ..Script::default() }),
        ("rcpt", Script { rcpt: vec![("user", no())], ..Script::default() }),
        ("dot", Script { dot: no(), ..Script::default() }),
    ]
}

#[tokio::test]
async fn a_new_route_refuses_nothing_for_good() {
    for (step, script) in refusals() {
        let (_server, route) = mk_server(vec![script]).await;
        for (number, mode, expected) in [
            (1, SoftBounce::UntilFirstDelivery, (450, (4, 7, 1), Reason::UpstreamDeferred)),
            (2, SoftBounce::Always, (450, (4, 7, 1), Reason::UpstreamDeferred)),
            (3, SoftBounce::Never, (554, (5, 7, 1), Reason::UpstreamRejected)),
        ] {
            let (code, enhanced, reason) = expected;
            let outcome = World::new().deliver(&mk_soft(&route, number, mode)).await;
            assert_eq!(outcome.heard(), (step, code, enhanced, reason), "{mode:?}");
        }
    }
}

#[tokio::test]
async fn after_a_delivery_through_the_route_its_upstream_is_believed() {
    for (step, script) in refusals() {
        let (_server, route) = mk_server(vec![Script::default(), script]).await;
        // Each message has its own connection, and with it its own script.
        let world = World::with(UpstreamSettings { transactions: 1, ..UpstreamSettings::default() });
        let wary = mk_soft(&route, 1, SoftBounce::UntilFirstDelivery);
        world.deliver(&wary).await.assert_accepted();
        let outcome = world.deliver(&wary).await;
        assert_eq!(outcome.heard(), (step, 554, (5, 7, 1), Reason::UpstreamRejected));
        // Another route is not believed for it, and `Always` never is.
        let other = mk_soft(&route, 2, SoftBounce::UntilFirstDelivery);
        assert_eq!(world.deliver(&other).await.heard().1, 450, "{step}");
        let always = mk_soft(&route, 1, SoftBounce::Always);
        assert_eq!(world.deliver(&always).await.heard().1, 450, "{step}");
    }
}

#[tokio::test]
async fn more_recipients_are_softened_too() {
    let script = Script { rcpt: vec![("other", Say::Text("550 5.1.1 who\r\n"))], ..Script::default() };
    let (_server, route) = mk_server(vec![script]).await;
    let world = World::new();
    let (mut relay, _) = world.begin(&mk_soft(&route, 1, SoftBounce::UntilFirstDelivery)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let replies = relay.recipients(&["other@example.org"], deadline).await.unwrap();
    assert_eq!((replies[0].accepted, replies[0].client_reply.code), (false, 450));
    assert_eq!(replies[0].upstream_reply, "550 5.1.1 who");
}
