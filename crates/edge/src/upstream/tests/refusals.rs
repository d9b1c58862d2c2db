//! What is remembered of recipients that an upstream does not know.

use super::script::Say;
use super::*;

async fn ask(world: &World, route: &Arc<Route>, recipient: &str) -> Option<RelayReply> {
    let outcome = world.deliver_to(route, &[recipient], BODY).await;
    assert_ne!(outcome.heard().1, 250);
    world.upstreams.known_refusal(route.digest, || recipient.to_owned())
}

#[tokio::test]
async fn an_unknown_recipient_is_remembered_for_its_route_and_for_a_while() {
    let script = Script { rcpt: vec![("user", Say::Text("550 5.1.1 who\r\n"))], ..Script::default() };
    let (_server, route) = mk_server(vec![script.clone()]).await;
    let world = World::new();
    let known = ask(&world, &route, RECIPIENT).await.unwrap();
    assert_eq!((known.client_reply.code, known.client_reply.enhanced), (550, (5, 1, 1)));
    assert_eq!((known.accepted, known.reason), (false, Reason::UpstreamRejected));
    assert_eq!(known.upstream_reply, "(remembered) 550 5.1.1 who");
    assert_eq!(world.upstreams.known_refusal(RouteDigest([8; 16]), || RECIPIENT.to_owned()), None);
    assert_eq!(world.upstreams.known_refusal(route.digest, || "User@example.org".to_owned()), None);

    let forgetful = World::with(UpstreamSettings { remember: Duration::ZERO, ..Default::default() });
    assert_eq!(ask(&forgetful, &route, RECIPIENT).await, None);
    let wary = Arc::new(Route { soft_bounce: SoftBounce::UntilFirstDelivery, ..(*route).clone() });
    assert_eq!(ask(&World::new(), &wary, RECIPIENT).await, None, "what is not believed is not remembered");
}

#[tokio::test]
async fn a_refusal_that_may_be_about_the_sender_is_not_remembered() {
    for said in [
        "550 no\r\n",
        "554 5.7.1 listed\r\n",
        "550 5.1.8 bad sender\r\n",
        "552 5.2.2 full\r\n",
        "450 4.1.1 wait\r\n",
    ] {
        let script = Script { rcpt: vec![("user", Say::Text(said))], ..Script::default() };
        let (_server, route) = mk_server(vec![script]).await;
        assert_eq!(ask(&World::new(), &route, RECIPIENT).await, None, "{said}");
    }
}
