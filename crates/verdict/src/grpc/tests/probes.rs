//! Health, reflection, status: what others than edges ask.

use std::collections::BTreeSet;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::*;

const WHOLE: &str = "";
const VERDICT: &str = "torwart.verdict.v1.VerdictService";
const STATUS: &str = "torwart.verdict.v1.StatusService";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_follows_the_policy_and_the_order_to_stop() {
    let setup = start_without_policy(None, |settings| settings.drain_delay = Duration::from_millis(1)).await;
    let mut health = HealthClient::new(setup.channel());
    for (service, expected) in [
        (WHOLE, ServingStatus::NotServing),
        (VERDICT, ServingStatus::NotServing),
        (STATUS, ServingStatus::Serving),
    ] {
        let answer = patiently(health.check(of(service))).await.unwrap().into_inner();
        assert_eq!(answer.status(), expected, "{service:?}");
    }
    assert_eq!(patiently(health.check(of("other"))).await.err().unwrap().code(), Code::NotFound);
    let mut whole = patiently(health.watch(of(WHOLE))).await.unwrap().into_inner();
    let mut verdict = patiently(health.watch(of(VERDICT))).await.unwrap().into_inner();
    for watch in [&mut whole, &mut verdict] {
        let now = patiently(watch.message()).await.unwrap().unwrap();
        assert_eq!(now.status(), ServingStatus::NotServing);
    }
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    for watch in [&mut whole, &mut verdict] {
        let now = patiently(watch.message()).await.unwrap().unwrap();
        assert_eq!(now.status(), ServingStatus::Serving);
    }
    setup.shutdown.cancel();
    for watch in [&mut whole, &mut verdict] {
        // The end may come before the last word is read.
        if let Some(now) = patiently(watch.message()).await.unwrap() {
            assert_eq!(now.status(), ServingStatus::NotServing);
        }
    }
    patiently(setup.serving).await.unwrap();
}

async fn reflect(client: &mut ServerReflectionClient<Channel>, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut answers =
        patiently(client.server_reflection_info(tokio_stream::iter([request]))).await.unwrap().into_inner();
    let ServerReflectionResponse { message_response, .. } =
        patiently(answers.message()).await.unwrap().unwrap();
    message_response.unwrap()
}

#[tokio::test]
async fn reflection_lists_every_service_and_describes_them() {
    let setup = start().await;
    let mut client = ServerReflectionClient::new(setup.channel());
    let MessageResponse::ListServicesResponse(list) =
        reflect(&mut client, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let listed: BTreeSet<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in [VERDICT, STATUS, "grpc.health.v1.Health"] {
        assert!(listed.contains(service), "{listed:?}");
        let described = reflect(&mut client, MessageRequest::FileContainingSymbol(service.to_owned())).await;
        assert!(matches!(described, MessageResponse::FileDescriptorResponse(_)), "{service}");
    }
}

#[tokio::test]
async fn status_tells_of_the_process_and_its_policy() {
    let setup = start_without_policy(None, |_| {}).await;
    let mut client = setup.status();
    let get = async |client: &mut StatusServiceClient<Channel>| {
        patiently(client.get_status(v1::GetStatusRequest {})).await.unwrap().into_inner()
    };
    let before = v1::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: START,
        policy: Some(v1::PolicyStatus::default()),
        formats_read: torwart_policy::publish::FORMATS_READ.to_vec(),
        lists: Vec::new(),
        suspects: Some(v1::SuspectStatus::default()),
        own_addresses_listed: Vec::new(),
    };
    assert_eq!(get(&mut client).await, before);
    setup.clock.advance(10);
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    setup.clock.advance(10);
    setup.engine.set_published(mk_policy("r1", 1, |_, _| {}), 7);
    let mut verdict = setup.verdict();
    for address in ["10.0.0.1", CLIENT, "10.0.0.2"] {
        setup.clock.advance(1);
        patiently(verdict.check_recipients(recipients_request(address, &[BOB]))).await.unwrap();
    }
    let after = v1::GetStatusResponse {
        policy: Some(v1::PolicyStatus { revision: "r1".to_owned(), sequence: 7, loaded_at: START + 10 }),
        suspects: Some(v1::SuspectStatus { count: 2, last_seen: START + 23 }),
        ..before
    };
    assert_eq!(get(&mut client).await, after);
}

#[tokio::test]
async fn upstream_outcomes_are_listed_page_by_page() {
    let setup = start_without_policy(None, |_| {}).await;
    setup.engine.set_policy(mk_policy_of("r1", &["a.example", "b.example", "c.example"], 1));
    let mut verdict = setup.verdict();
    for domain in ["c.example", "a.example", "b.example"] {
        let recipient = format!("bob@{domain}");
        let mut report: v1::ReportOutcomeRequest =
            (&mk_delivery(CLIENT, ANNA, &[&recipient], DeliveryResult::Deferred)).into();
        report.upstream = Some("mx.example:25".to_owned());
        report.upstream_reply = Some("451 later".to_owned());
        patiently(verdict.report_outcome(report)).await.unwrap();
    }
    let mut client = setup.status();
    let mut list = async |page_size, page_token: &str| {
        let request = v1::ListUpstreamOutcomesRequest { page_size, page_token: page_token.to_owned() };
        let answer = patiently(client.list_upstream_outcomes(request)).await.unwrap().into_inner();
        let objects: Vec<String> = answer.outcomes.iter().map(|one| one.object.clone()).collect();
        (objects.join(" "), answer)
    };
    let (objects, first) = list(2, "").await;
    assert_eq!(objects, "mail/a.example mail/b.example");
    let (objects, second) = list(2, &first.next_page_token).await;
    assert_eq!((objects.as_str(), second.next_page_token.as_str()), ("mail/c.example", ""));
    let (objects, all) = list(0, "").await;
    assert_eq!(objects, "mail/a.example mail/b.example mail/c.example");
    assert_eq!(all.next_page_token, "");
    let expected = v1::UpstreamOutcomes {
        object: "mail/a.example".to_owned(),
        reachable: true,
        since: START,
        last_reported: START,
        last_upstream: "mx.example:25".to_owned(),
        last_reply: "451 later".to_owned(),
        deferred: 1,
        ..v1::UpstreamOutcomes::default()
    };
    assert_eq!(all.outcomes.first(), Some(&expected));
}

#[tokio::test]
async fn a_connection_has_few_streams_that_never_end_and_others_have_theirs() {
    let setup = start().await;
    let mut health = HealthClient::new(setup.channel());
    let mut watches = Vec::new();
    for _ in 0..32 {
        watches.push(patiently(health.watch(of(WHOLE))).await.unwrap());
    }
    let refusal = patiently(health.watch(of(WHOLE))).await.err().unwrap();
    assert_eq!((refusal.code(), is_not_done(&refusal)), (Code::ResourceExhausted, true));
    assert_eq!(setup.calls_refused("overload"), 1);
    patiently(HealthClient::new(setup.channel()).watch(of(WHOLE))).await.unwrap();
    watches.pop();
    patiently(async {
        while health.check(of(WHOLE)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_longer_than_any_question_is_refused_by_its_first_bytes() {
    let setup = start().await;
    let mut request = recipients_request(CLIENT, &[BOB]);
    request.transaction_id = vec![0; 600 * 1024];
    let refusal = patiently(setup.verdict().check_recipients(request)).await.err().unwrap();
    assert_eq!(refusal.code(), Code::OutOfRange);
}
