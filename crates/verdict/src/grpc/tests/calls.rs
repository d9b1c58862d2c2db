use torwart_core::{Action, ConnectionAnswer, Greylist, RecipientsAnswer, Route};
use torwart_policy::RangeTable;
use torwart_policy::model::{Range, RangeAction};

use super::*;

#[tokio::test]
async fn every_question_is_answered_as_the_engine_answers_it() {
    let setup = start().await;
    let mut client = setup.verdict();
    let ask = async |client: &mut VerdictServiceClient<Channel>| {
        let answer = patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
        RecipientsAnswer::try_from(answer.into_inner()).unwrap()
    };
    let first = ask(&mut client).await;
    let verdict = &first.recipients[0];
    assert_eq!((verdict.action, verdict.greylist), (Action::Defer, Some(Greylist::New)));
    assert_eq!(verdict.reply.as_ref().map(|reply| reply.code), Some(450));
    assert_eq!(&*first.revision.0, "r1");
    setup.clock.advance(300);
    let second = &ask(&mut client).await.recipients[0];
    assert_eq!((second.action, second.greylist), (Action::Accept, Some(Greylist::Passed)));

    let digest = second.route.unwrap();
    let request = v1::GetRouteRequest { digest: digest.0.to_vec() };
    let route = patiently(client.get_route(request)).await.unwrap().into_inner().route.unwrap();
    assert_eq!(Route::try_from(route).unwrap(), *mk_route(1));

    patiently(client.report_outcome(report_request(DeliveryResult::Delivered))).await.unwrap();
    let request = recipients_request(CLIENT, &["carl@example.org"]);
    let known = patiently(client.check_recipients(request)).await.unwrap().into_inner();
    assert_eq!(known.recipients[0].greylist.as_deref(), Some("known"));

    let range = Range {
        name: "bad".into(),
        action: RangeAction::Reject,
        priority: 0,
        expires: None,
        tls: None,
        hidden: Vec::new(),
        dns_lists: None,
        greylisting: None,
    };
    setup.engine.set_policy(mk_policy("r2", 1, |_, gateway| {
        gateway.ranges = RangeTable::new([(range, vec!["192.0.2.0/24".parse().unwrap()])]);
    }));
    for (peer, code) in [(CLIENT, Some(554)), (STRANGER, None)] {
        let answer = patiently(client.check_connection(connection_request(peer))).await.unwrap();
        let answer = ConnectionAnswer::try_from(answer.into_inner()).unwrap();
        assert_eq!(answer.refuse.map(|(reply, _)| reply.code), code, "{peer}");
        assert_eq!(&*answer.revision.0, "r2");
    }
}

fn assert_not_done<T>(answer: Result<T, Status>, code: Code) {
    let status = answer.err().unwrap();
    assert_eq!(status.code(), code, "{status}");
    assert!(is_not_done(&status), "{status}");
}

fn assert_refused<T>(answer: Result<T, Status>, code: Code, word: &str) {
    let status = answer.err().unwrap();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(word), "{status} does not say {word}");
    assert!(!is_not_done(&status), "{status}: it would be the same elsewhere");
}

#[tokio::test]
async fn before_the_first_policy_another_replica_may_be_asked() {
    let setup = start_without_policy(None, |_| {}).await;
    let mut client = setup.verdict();
    let code = Code::Unavailable;
    assert_not_done(patiently(client.check_connection(connection_request(CLIENT))).await, code);
    assert_not_done(patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await, code);
    assert_not_done(patiently(client.get_route(route_request(1))).await, code);
    assert_not_done(patiently(client.report_outcome(report_request(DeliveryResult::Delivered))).await, code);
    assert_eq!(setup.calls_refused("no_policy"), 4);
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
}

#[tokio::test]
async fn a_malformed_question_is_refused_and_its_field_is_named() {
    let setup = start().await;
    let mut client = setup.verdict();
    let code = Code::InvalidArgument;
    let recipients = |change: fn(&mut v1::CheckRecipientsRequest)| {
        let mut request = recipients_request(CLIENT, &[BOB]);
        change(&mut request);
        request
    };
    let many = |request: &mut v1::CheckRecipientsRequest, count| {
        let one = request.recipients[0].clone();
        request.recipients = vec![one; count];
    };
    let mut most = recipients(|_| {});
    many(&mut most, 1000);
    let answer = patiently(client.check_recipients(most)).await.unwrap().into_inner();
    assert_eq!(answer.recipients.len(), 1000);
    let mut too_many = recipients(|_| {});
    many(&mut too_many, 1001);
    for (request, field) in [
        (too_many, "recipients:"),
        (recipients(|request| request.recipients.clear()), "recipients:"),
        (recipients(|request| request.peer = None), "peer:"),
        (recipients(|request| request.transaction_id.truncate(3)), "transaction_id:"),
    ] {
        assert_refused(patiently(client.check_recipients(request)).await, code, field);
    }
    let mut report = report_request(DeliveryResult::Delivered);
    report.outcome = 0;
    assert_refused(patiently(client.report_outcome(report)).await, code, "outcome:");
    let peerless = v1::CheckConnectionRequest { peer: None };
    assert_refused(patiently(client.check_connection(peerless)).await, code, "peer:");
    let short = v1::GetRouteRequest { digest: vec![1; 3] };
    assert_refused(patiently(client.get_route(short)).await, code, "digest: has 3 bytes");
    assert_eq!(setup.calls_refused("invalid"), 7);
}

#[tokio::test]
async fn a_route_that_no_policy_has_is_not_found() {
    let setup = start().await;
    let answer = patiently(setup.verdict().get_route(route_request(9))).await;
    assert_refused(answer, Code::NotFound, "09090909090909090909090909090909");
    assert_eq!(setup.calls_refused("unknown_route"), 1);
}
