use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use torwart_core::{Action, BodyPart, MessageAnswer, MessageQuestion, Reason};
use torwart_proto::convert::message_begin;

use super::*;

fn question() -> MessageQuestion {
    let RecipientsQuestion { peer, transaction, envelope, recipients, accepted_before: _ } =
        mk_question(CLIENT, ANNA, &[BOB]);
    MessageQuestion { peer, transaction, envelope, recipients, checks: Vec::new() }
}

fn begin() -> v1::CheckMessageRequest {
    message_begin(&question())
}

fn chunk(text: &str) -> v1::CheckMessageRequest {
    BodyPart::Chunk(text.as_bytes().to_vec()).into()
}

fn end(size: u64) -> v1::CheckMessageRequest {
    BodyPart::End { size }.into()
}

fn whole(text: &str) -> Vec<v1::CheckMessageRequest> {
    vec![begin(), chunk(text), end(text.len() as u64)]
}

async fn start_checking(change: impl FnOnce(&mut GrpcSettings)) -> Setup {
    start_with_messages(MessageLimits { test_check: true, ..MessageLimits::default() }, change).await
}

async fn start_with_messages(messages: MessageLimits, change: impl FnOnce(&mut GrpcSettings)) -> Setup {
    let setup = start_unready(None, messages, change).await;
    setup.engine.set_policy(mk_policy("r1", 1, |_, _| {}));
    setup
}

async fn ask(
    setup: &Setup,
    parts: impl Stream<Item = v1::CheckMessageRequest> + Send + 'static,
) -> Result<MessageAnswer, Status> {
    let answer = patiently(setup.verdict().check_message(parts)).await?;
    Ok(MessageAnswer::try_from(answer.into_inner()).unwrap())
}

async fn ask_all(setup: &Setup, parts: Vec<v1::CheckMessageRequest>) -> Result<MessageAnswer, Status> {
    ask(setup, tokio_stream::iter(parts)).await
}

#[tokio::test]
async fn a_message_is_judged_when_it_is_whole() {
    let setup = start_checking(|_| {}).await;
    for (wish, action, code) in [
        ("reject", Action::Reject, Some(550)),
        ("defer", Action::Defer, Some(450)),
        ("tag", Action::Accept, None),
        ("delay 1", Action::Accept, None),
        ("", Action::Accept, None),
    ] {
        let answer =
            ask_all(&setup, whole(&format!("X-Test-Verdict: {wish}\r\n\r\nbody\r\n"))).await.unwrap();
        assert_eq!((answer.action, answer.reply.map(|reply| reply.code)), (action, code), "{wish}");
        assert_eq!(&*answer.revision.0, "r1");
        assert_eq!(answer.add_fields.len(), if wish == "tag" { 3 } else { 0 });
    }
    let body = whole("Subject: x\r\n\r\nX-Test-Verdict: reject\r\n");
    assert_eq!(ask_all(&setup, body).await.unwrap().reason, Reason::Accepted);
    for (action, reason, count) in [("accept", "accepted", 4), ("reject", "score", 1), ("defer", "score", 1)]
    {
        let labels = format!("action=\"{action}\",enforced=\"true\",reason=\"{reason}\",stage=\"message\"");
        assert_eq!(setup.metric(&format!("torwart_verdicts_total{{{labels}}}")), count, "{labels}");
    }
    assert_eq!(setup.metric("torwart_verdict_seconds_count{stage=\"message\"}"), 6);
    assert_eq!(setup.in_flight(), 0);
}

#[tokio::test]
async fn recipients_are_told_that_their_message_is_held_where_messages_are_checked() {
    for (setup, expected) in [(start_checking(|_| {}).await, true), (start().await, false)] {
        let request = recipients_request(CLIENT, &[BOB]);
        let answer = patiently(setup.verdict().check_recipients(request)).await.unwrap().into_inner();
        assert_eq!(answer.recipients[0].hold_message, expected);
    }
}

#[tokio::test]
async fn a_message_that_is_not_as_it_should_be_is_refused_and_nothing_of_it_is_kept() {
    let setup = start_checking(|_| {}).await;
    let long = "x".repeat(BodyPart::LONGEST_CHUNK + 1);
    let peerless = v1::check_message_request::Part::Begin(v1::MessageBegin::default());
    let unknown = || v1::CheckMessageRequest { part: None };
    let table = [
        (vec![], "part:"),
        (vec![chunk("a")], "part:"),
        (vec![end(0)], "part:"),
        (vec![v1::CheckMessageRequest { part: Some(peerless) }], "recipients:"),
        (vec![begin()], "part:"),
        (vec![begin(), chunk("a")], "part:"),
        (vec![begin(), begin(), end(0)], "part:"),
        (vec![begin(), unknown(), end(0)], "part:"),
        (vec![begin(), chunk(&long), end(long.len() as u64)], "part.chunk:"),
    ];
    let rows = table.len() as u64;
    for (parts, word) in table {
        let status = ask_all(&setup, parts).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(word), "{status} does not say {word}");
    }
    assert_eq!(setup.calls_refused("invalid"), rows);
    assert_eq!(setup.in_flight(), 0);
}

#[tokio::test]
async fn all_messages_together_have_their_memory_and_one_has_its_part_of_it() {
    let limits = MessageLimits { memory: 64 * 1024, inspect: 32 * 1024, test_check: true };
    let setup = start_with_messages(limits, |_| {}).await;
    let field = "X: y\r\n".repeat(4000);
    let large = format!("{field}X-Test-Verdict: reject\r\n\r\n");
    let parts = vec![begin(), chunk(&large), end(1_000_000)];
    let answer = ask_all(&setup, parts.clone()).await.unwrap();
    assert_eq!(&*answer.checks[0].detail, "24026 of 1000000 bytes seen");
    let larger = vec![begin(), chunk(&field), chunk(&large), end(1_000_000)];
    let answer = ask_all(&setup, larger.clone()).await.unwrap();
    assert_eq!((answer.action, &*answer.checks[0].detail), (Action::Accept, "32768 of 1000000 bytes seen"));

    let mut open = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..2 {
        let (sender, receiver) = mpsc::channel(4);
        for part in larger.iter().take(3) {
            sender.send(part.clone()).await.unwrap();
        }
        open.push(sender);
        let mut client = setup.verdict();
        asked.push(tokio::spawn(async move { client.check_message(ReceiverStream::new(receiver)).await }));
    }
    until(|| setup.engine.message_room() == 0).await;
    let refused = ask_all(&setup, parts.clone()).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("--message-memory"), "{refused}");
    // who goes on is served, and who gives up makes room
    open.pop().unwrap().send(end(48_026)).await.unwrap();
    patiently(asked.pop().unwrap()).await.unwrap().unwrap();
    asked.pop().unwrap().abort();
    until(|| setup.in_flight() == 0).await;
    ask_all(&setup, parts).await.unwrap();
}

#[tokio::test]
async fn a_message_has_time_limits_of_its_own() {
    let short = Duration::from_millis(30);
    let hang = "X-Test-Verdict: hang\r\n\r\n";
    let (_open, silent) = mpsc::channel(1);
    let setup = start_checking(|settings| settings.message_silence = short).await;
    let status = ask(&setup, ReceiverStream::new(silent)).await.err().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let (open, half) = mpsc::channel(4);
    open.send(begin()).await.unwrap();
    open.send(chunk("half")).await.unwrap();
    let status = ask(&setup, ReceiverStream::new(half)).await.err().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("did not go on"), "{status}");

    let setup = start_checking(|settings| settings.message_answer = short).await;
    let status = ask_all(&setup, whole(hang)).await.err().unwrap();
    assert!(status.message().contains("took too long"), "{status}");

    let setup = start_checking(|settings| settings.message_limit = short).await;
    let status = ask_all(&setup, whole(hang)).await.err().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");

    // the time of a question does not count
    let setup = start_checking(|settings| settings.call_limit = short).await;
    let status = ask_all(&setup, whole("X-Test-Verdict: delay 100\r\n\r\n")).await;
    assert_eq!(status.unwrap().action, Action::Accept);
    assert_eq!(setup.in_flight(), 0);
}

#[tokio::test]
async fn messages_take_no_question_s_place() {
    let setup = start_checking(|settings| (settings.max_calls, settings.max_messages) = (1, 1)).await;
    let (open, half) = mpsc::channel(4);
    open.send(begin()).await.unwrap();
    let mut client = setup.verdict();
    let message = tokio::spawn(async move { client.check_message(ReceiverStream::new(half)).await });
    until(|| setup.in_flight() == 1).await;
    patiently(setup.verdict().check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    let refused = ask_all(&setup, whole("")).await.err().unwrap();
    assert_eq!((refused.code(), is_not_done(&refused)), (Code::ResourceExhausted, true), "{refused}");
    open.send(end(0)).await.unwrap();
    patiently(message).await.unwrap().unwrap();
    ask_all(&setup, whole("")).await.unwrap();
}

#[tokio::test]
async fn before_the_first_policy_no_message_is_read() {
    let setup = start_unready(None, MessageLimits::default(), |_| {}).await;
    let refused = ask_all(&setup, whole("")).await.err().unwrap();
    assert_eq!((refused.code(), is_not_done(&refused)), (Code::Unavailable, true), "{refused}");
}
