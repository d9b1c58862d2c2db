use proptest::prelude::*;

use super::script::Say;
use super::*;

/// What a message may look like after the edge has checked it: no bare CR or LF.
fn arb_body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"\r\n".to_vec()),
        4 => Just(b".".to_vec()),
        2 => Just(b"\r\n.\r\n".to_vec()),
        2 => Just(b"..".to_vec()),
        4 => proptest::collection::vec(prop_oneof![Just(b'.'), 32u8..127, 128u8..=255], 0..200),
        1 => Just(vec![b'x'; 70_000]),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| {
        let mut body = pieces.concat();
        if !body.is_empty() && !body.ends_with(b"\r\n") {
            body.extend_from_slice(b"\r\n");
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_upstream_decodes_the_body_whatever_the_chunks(
        body in arb_body(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let decoded = runtime.block_on(async {
            let (server, route) = mk_server(vec![Script::default()]).await;
            let world = World::new();
            let (mut relay, _) = world.begin(&route).await.unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            relay.data(deadline).await.unwrap();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            places.sort_unstable();
            places.push(body.len());
            let mut from = 0;
            for to in places {
                relay.body(&body[from..to], None).await.unwrap();
                from = to;
            }
            let ended = relay.finish(deadline).await;
            assert!(matches!(ended, Final::Accepted { .. }), "{ended:?}");
            server.seen().messages
        });
        prop_assert_eq!(decoded, [body]);
    }
}

#[tokio::test]
async fn a_large_message_streams_through() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world = World::new();
    let body = "0123456789 and a dot at the start of the next line\r\n.\r\n".repeat(20_000).into_bytes();
    world.deliver_to(&route, &[RECIPIENT], &body).await.assert_accepted();
    assert!(server.seen().messages[0] == body);
}

/// More than the kernel buffers on both sides take, so that the answer must be noticed while the write is blocked.
#[tokio::test]
async fn an_early_answer_stops_the_message_and_is_the_answer() {
    let rows = [
        ("552 5.3.4 too large\r\n", (552, (5, 3, 4), Reason::UpstreamRejected), None),
        ("451 4.3.1 disk full\r\n", (451, (4, 3, 1), Reason::UpstreamDeferred), None),
        ("421 4.3.2 bye\r\n", (451, (4, 3, 2), Reason::UpstreamDeferred), Some(FailureKind::Refused)),
        ("500 5.5.2 what\r\n", (451, (4, 3, 5), Reason::UpstreamDeferred), Some(FailureKind::Refused)),
        ("250 2.0.0 thank you\r\n", (451, (4, 5, 0), Reason::UpstreamDeferred), Some(FailureKind::Protocol)),
        ("354 go on\r\n", (451, (4, 5, 0), Reason::UpstreamDeferred), Some(FailureKind::Protocol)),
        ("nonsense\r\n", (451, (4, 5, 0), Reason::UpstreamDeferred), Some(FailureKind::Protocol)),
    ];
    let body = "a line of a large message\r\n".repeat(1_000_000).into_bytes();
    for (said, (code, enhanced, reason), failure) in rows {
        let script = Script { early: Some((10_000, Say::Text(said))), ..Script::default() };
        let (server, route) = mk_server(vec![script]).await;
        let world = World::new();
        let outcome = world.deliver_to(&route, &[RECIPIENT], &body).await;
        assert_eq!(outcome.heard(), ("body", code, enhanced, reason), "{said}");
        assert_eq!(world.failures(), Vec::from_iter(failure.map(|kind| (kind, 1))), "{said}");
        assert!(server.seen().messages.is_empty());
        assert_eq!((world.active(), world.idle()), (0, 0));
    }
}

#[tokio::test]
async fn an_early_answer_before_the_dot_of_a_small_message_keeps_the_dot_back() {
    let script = Script { early: Some((0, Say::Text("552 5.3.4 no\r\n"))), ..Script::default() };
    let (server, route) = mk_server(vec![script]).await;
    let world = World::new();
    let (mut relay, _) = world.begin(&route).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // "354" and "552" come at once; the second is not lost.
    relay.data(deadline).await.unwrap();
    relay.body(BODY, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let Final::Refused(refusal) = relay.finish(deadline).await else { panic!("the message was taken") };
    assert_eq!((refusal.reply.code, refusal.reply.enhanced), (552, (5, 3, 4)));
    assert!(!server.seen().reads.concat().ends_with(b".\r\n"));
}

#[tokio::test]
async fn an_upstream_that_stops_reading_is_given_up() {
    let script = Script { early: Some((10_000, Say::Text(""))), ..Script::default() };
    let (_server, route) = mk_server(vec![script]).await;
    let world =
        World::with(UpstreamSettings { block: Duration::from_millis(100), ..UpstreamSettings::default() });
    let body = "a line of a large message\r\n".repeat(1_000_000).into_bytes();
    let outcome = world.deliver_to(&route, &[RECIPIENT], &body).await;
    assert_eq!(outcome.heard(), ("body", 451, (4, 4, 2), Reason::UpstreamUnreachable));
    assert_eq!(world.failures(), [(FailureKind::Timeout, 1)]);
}

#[tokio::test]
async fn the_time_after_the_dot_holds_for_what_is_still_to_be_written() {
    let script = Script { early: Some((10_000, Say::Text(""))), ..Script::default() };
    let (_server, route) = mk_server(vec![script]).await;
    let world = World::new();
    let (mut relay, _) = world.begin(&route).await.unwrap();
    relay.data(Instant::now() + Duration::from_secs(20)).await.unwrap();
    let body = "a line of a large message\r\n".repeat(1_000_000).into_bytes();
    let writing = relay.body(&body, Some(Instant::now() + Duration::from_millis(100)));
    let refusal = tokio::time::timeout(Duration::from_secs(20), writing).await.unwrap().unwrap_err();
    assert_eq!((refusal.reply.code, refusal.reply.enhanced), (451, (4, 4, 2)));
}

#[tokio::test]
async fn a_small_message_to_a_deaf_upstream_is_unknown_for_it_was_sent() {
    let script = Script { early: Some((0, Say::Text(""))), ..Script::default() };
    let (_server, route) = mk_server(vec![script]).await;
    let limit = Duration::from_millis(200);
    let outcome = World::new().deliver_within(&route, &[RECIPIENT], BODY, limit).await;
    assert_eq!(outcome.heard(), ("unknown", 451, (4, 4, 2), Reason::UpstreamOutcomeUnknown));
}
