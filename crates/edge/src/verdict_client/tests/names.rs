//! Names whose addresses change.

use std::sync::Arc;
use std::time::Duration;

use torwart_core::{UnavailableKind, Verdicts};

use super::harness::{Behaviour, Names, Server, connection, named, recipients, soon, start};
use crate::verdict_client::VerdictClient;
use crate::verdict_client::metrics::FailureKind;

async fn who_answers(client: &VerdictClient) -> String {
    client.check_recipients(recipients()).await.unwrap().identity.unwrap().to_string()
}

#[tokio::test]
async fn new_addresses_of_a_name_are_asked_and_old_ones_finish_what_they_have() {
    let [a, b] = Server::fleet().await;
    let names = Names::new(&[&a]);
    let client = start(named(&names, a.address.port()));
    assert_eq!(who_answers(&client).await, "1");

    a.script.set(Behaviour::Wait);
    let waiting = tokio::spawn({
        let client = Arc::clone(&client);
        async move { who_answers(&client).await }
    });
    a.script.called(2).await;
    names.say(&[&b]);
    names.asked().await;
    for _ in 0..20 {
        assert_eq!(who_answers(&client).await, "2");
    }
    a.script.state().release.notify_one();
    assert_eq!(soon(waiting).await.unwrap(), "1");
    assert_eq!(a.script.all_calls(), 2);
}

#[tokio::test]
async fn an_added_address_takes_its_share() {
    let [a, b] = Server::fleet().await;
    let names = Names::new(&[&a]);
    let client = start(named(&names, a.address.port()));
    assert_eq!(who_answers(&client).await, "1");
    names.say(&[&a, &b]);
    names.asked().await;
    client.check_connection(connection()).await.unwrap(); // the trial
    for _ in 0..50 {
        who_answers(&client).await;
    }
    assert!(b.script.all_calls() > 5 && a.script.all_calls() > 5);
}

#[tokio::test]
async fn an_empty_or_failed_answer_leaves_the_addresses_as_they_were() {
    let [a] = Server::fleet().await;
    let names = Names::new(&[&a]);
    let client = start(named(&names, a.address.port()));
    assert_eq!(who_answers(&client).await, "1");
    names.say(&[]);
    names.asked().await;
    assert_eq!(who_answers(&client).await, "1");
    names.fail();
    names.asked().await;
    assert_eq!(who_answers(&client).await, "1");
    assert!(client.metrics.failures(FailureKind::Resolve) >= 2);
}

#[tokio::test]
async fn a_failed_connection_has_the_name_looked_up_at_once() {
    let [mut a, b] = Server::fleet().await;
    let names = Names::new(&[&a]);
    let mut settings = named(&names, a.address.port());
    settings.refresh = Duration::from_secs(3600);
    let client = start(settings);
    assert_eq!(who_answers(&client).await, "1");
    a.kill();
    names.say(&[&b]);
    soon(async {
        while client.check_recipients(recipients()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(who_answers(&client).await, "2");
}

#[tokio::test]
async fn right_after_the_start_a_question_waits_for_the_first_look_up() {
    let [a] = Server::fleet().await;
    let names = Names::new(&[&a]);
    names.silent.send_replace(true);
    let client = start(named(&names, a.address.port()));
    let mut asking = client.check_recipients(recipients());
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut asking).await.is_err());
    names.silent.send_replace(false);
    asking.await.unwrap();
}

#[tokio::test]
async fn a_name_without_any_address_is_nobody_to_ask() {
    let [a] = Server::fleet().await;
    let names = Names::new(&[]);
    let client = start(named(&names, a.address.port()));
    let error = client.check_recipients(recipients()).await.unwrap_err();
    assert_eq!(error.kind, UnavailableKind::Unanswered);
    assert_eq!(client.metrics.failures(FailureKind::NoBackend), 1);
    names.say(&[&a]);
    names.asked().await;
    assert_eq!(who_answers(&client).await, "1");
}
