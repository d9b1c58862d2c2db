//! A message goes to one verdict, and to no other once it was begun.

use tokio::sync::mpsc;
use tonic::Status;
use torwart_core::{BodyPart, MessageBody, UnavailableKind, Verdicts};

use super::harness::*;

struct Feed(mpsc::Receiver<BodyPart>);

impl MessageBody for Feed {
    fn poll_next(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<BodyPart>> {
        self.0.poll_recv(context)
    }
}

fn body() -> Box<dyn MessageBody> {
    let parts =
        vec![BodyPart::Chunk(vec![b'x'; 1000]), BodyPart::Chunk(vec![b'y'; 7]), BodyPart::End { size: 1007 }];
    Box::new(parts.into_iter())
}

#[tokio::test]
async fn a_message_is_answered() {
    let server = Server::start("one").await;
    let client = client(&[&server]);
    let answer = soon(client.check_message(message(), body())).await.unwrap();
    assert_eq!(&*answer.revision.0, "one");
    assert_eq!(server.script.calls("message"), 1);
}

#[tokio::test]
async fn a_verdict_that_is_not_there_costs_nothing_and_one_that_has_begun_is_the_only_one() {
    for status in [Status::unavailable("x"), Status::internal("x"), Status::unimplemented("x")] {
        let [mut first, second] = Server::fleet().await;
        second.script.set(Behaviour::Fail(status.clone()));
        first.kill();
        // whichever is chosen first: the dead one is no answer, the other's failure is final
        let client = client(&[&first, &second]);
        let error = soon(client.check_message(message(), body())).await.unwrap_err();
        assert_eq!(error.kind, UnavailableKind::Unanswered, "{status}");
        assert!(error.detail.contains(&second.address.to_string()), "{error}");
        assert_eq!(second.script.calls("message"), 1, "{status}");
    }
    let fleet: [Server; 3] = Server::fleet().await;
    for server in &fleet {
        server.script.set(Behaviour::Fail(Status::unimplemented("of another version")));
    }
    let client = client(&[&fleet[0], &fleet[1], &fleet[2]]);
    soon(client.check_message(message(), body())).await.unwrap_err();
    let asked: usize = fleet.iter().map(|server| server.script.calls("message")).sum();
    assert_eq!(asked, 1, "what was begun is not begun again");
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_none() {
    let server = Server::start("one").await;
    server.script.set(Behaviour::Nonsense);
    let client = client(&[&server]);
    let error = soon(client.check_message(message(), body())).await.unwrap_err();
    assert!(error.detail.contains("add_fields"), "{error}");
}

#[tokio::test]
async fn a_verdict_that_is_killed_inside_a_message_is_the_end_of_it() {
    let [mut first, mut second] = Server::fleet().await;
    let client = client(&[&first, &second]);
    let (feed, receiver) = mpsc::channel(4);
    feed.send(BodyPart::Chunk(vec![b'x'; 10])).await.unwrap();
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.check_message(message(), Box::new(Feed(receiver))).await }
    });
    let called = |server: &Server| server.script.calls("message");
    while called(&first) + called(&second) == 0 {
        tokio::task::yield_now().await;
    }
    if called(&first) == 1 {
        first.kill()
    } else {
        second.kill()
    }
    soon(asking).await.unwrap().unwrap_err();
    assert_eq!(called(&first) + called(&second), 1);
    assert!(feed.send(BodyPart::End { size: 10 }).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn messages_hold_up_no_question_and_giving_one_up_says_nothing_of_the_verdict() {
    let server = Server::start("one").await;
    let client = client(&[&server]);
    let mut feeds = Vec::new();
    let mut asking = Vec::new();
    for _ in 0..20 {
        let (feed, receiver) = mpsc::channel(1);
        feeds.push(feed);
        let client = client.clone();
        asking.push(tokio::spawn(
            async move { client.check_message(message(), Box::new(Feed(receiver))).await },
        ));
    }
    server.script.called(20).await;
    tokio::time::sleep(SLICE).await;
    for asking in asking {
        asking.abort();
    }
    for _ in 0..5 {
        soon(client.check_recipients(recipients())).await.unwrap();
    }
}
