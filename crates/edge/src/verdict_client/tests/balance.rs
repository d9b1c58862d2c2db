//! Several servers, of which some do not do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Status;
use torwart_core::{UnavailableKind, Verdicts};
use torwart_proto::channel::not_done;

use super::harness::{Behaviour, Server, client, connection, recipients, settings, soon, start};
use crate::verdict_client::VerdictClient;
use crate::verdict_client::balancer::Standing;
use crate::verdict_client::metrics::FailureKind;

#[tokio::test]
async fn an_answer_is_what_the_server_said_and_the_deadline_goes_along() {
    let server = Server::start("1").await;
    let client = client(&[&server]);
    let answer = client.check_recipients(recipients()).await.unwrap();
    assert_eq!(answer.identity.as_deref(), Some("1"));
    assert_eq!(answer.recipients.len(), 2);
    assert_eq!(answer.recipients[1].reply.as_ref().unwrap().code, 450);
    assert!(answer.ask_connections);
    let metadata = server.script.state().metadata.lock().unwrap().clone();
    assert!(metadata.get("grpc-timeout").is_some(), "{metadata:?}");
    assert_eq!(client.metrics.counted(Standing::Healthy), 1);
    let greeting = client.check_connection(connection()).await.unwrap();
    assert_eq!(&*greeting.revision.0, "1");
}

#[tokio::test]
async fn all_servers_are_asked() {
    let [a, b, c] = [Server::start("1").await, Server::start("2").await, Server::start("3").await];
    let client = client(&[&a, &b, &c]);
    for _ in 0..60 {
        client.check_recipients(recipients()).await.unwrap();
    }
    let calls = [&a, &b, &c].map(|server| server.script.calls("recipients"));
    assert_eq!(calls.iter().sum::<usize>(), 60);
    assert!(calls.iter().all(|calls| *calls > 5), "{calls:?}");
}

#[tokio::test]
async fn with_one_of_three_down_every_question_is_answered() {
    let [mut a, b, c] = [Server::start("1").await, Server::start("2").await, Server::start("3").await];
    a.kill();
    let client = client(&[&a, &b, &c]);
    for _ in 0..50 {
        client.check_recipients(recipients()).await.unwrap();
        client.check_connection(connection()).await.unwrap();
    }
    assert!(client.metrics.failures(FailureKind::Connect) >= 1);
    assert_eq!(client.metrics.retries.get(), client.metrics.failures(FailureKind::Connect));
    // it comes back, and is asked again
    a.start_again(None).await;
    soon(async {
        while a.script.all_calls() == 0 {
            client.check_connection(connection()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn one_that_hangs_costs_a_slice_and_is_ejected() {
    let [a, b] = [Server::start("1").await, Server::start("2").await];
    a.script.set(Behaviour::Hang);
    let mut settings = settings(&[&a, &b]);
    settings.ejection = Duration::from_secs(3600);
    settings.longest_ejection = settings.ejection;
    let client = start(settings);
    soon(async {
        while client.metrics.counted(Standing::Ejected) == 0 {
            // each is answered, if need be by the other
            let answer = client.check_connection(connection()).await.unwrap();
            assert_eq!(&*answer.revision.0, "2");
        }
    })
    .await;
    let hung = a.script.all_calls();
    assert_eq!(hung, 3);
    assert_eq!(client.metrics.failures(FailureKind::Timeout), 3);
    for _ in 0..50 {
        client.check_recipients(recipients()).await.unwrap();
    }
    assert_eq!(a.script.all_calls(), hung);
    // alone it is still asked: there is nobody else
    drop(b);
    soon(async {
        while a.script.all_calls() == hung {
            let _ = client.check_connection(connection()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_overloaded_server_is_passed_over() {
    let [a, b] = [Server::start("1").await, Server::start("2").await];
    a.script.set(Behaviour::Fail(not_done(Status::resource_exhausted("too many calls"))));
    let client = client(&[&a, &b]);
    for _ in 0..50 {
        let answer = client.check_recipients(recipients()).await.unwrap();
        assert_eq!(answer.identity.as_deref(), Some("2"));
    }
    assert_eq!(a.script.all_calls() as u64, client.metrics.failures(FailureKind::Overload));
    assert!(a.script.all_calls() >= 1);
}

#[tokio::test]
async fn where_all_are_overloaded_each_is_asked_once_and_the_mail_waits() {
    let fleet = [Server::start("1").await, Server::start("2").await, Server::start("3").await];
    for server in &fleet {
        server.script.set(Behaviour::Fail(not_done(Status::resource_exhausted("too many calls"))));
    }
    let client = client(&[&fleet[0], &fleet[1], &fleet[2]]);
    let error = client.check_recipients(recipients()).await.unwrap_err();
    assert_eq!(error.kind, UnavailableKind::Overloaded);
    assert_eq!(fleet.each_ref().map(|server| server.script.all_calls()), [1, 1, 1]);
}

/// Asks without pause until it is told to stop; how many answers about recipients came.
async fn ask_on(client: Arc<VerdictClient>, stop: Arc<AtomicBool>) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        client.check_connection(connection()).await.unwrap();
        for _ in 0..10 {
            client.check_recipients(recipients()).await.unwrap();
            answers += 1;
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_go_down_one_after_the_other_under_load_lose_no_question() {
    let mut servers = [Server::start("1").await, Server::start("2").await];
    let client = client(&[&servers[0], &servers[1]]);
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..8 {
        load.spawn(ask_on(Arc::clone(&client), Arc::clone(&stop)));
    }
    for round in 0..6 {
        let (down, up) = (round % 2, (round + 1) % 2);
        servers[down].stop().await;
        let calls = servers[up].script.all_calls();
        servers[up].script.called(calls + 100).await;
        let calls = servers[down].script.all_calls();
        servers[down].start_again(None).await;
        servers[down].script.called(calls + 100).await;
    }
    stop.store(true, Ordering::Relaxed);
    let answers: usize = soon(load.join_all()).await.into_iter().sum();
    let served: usize = servers.iter().map(|server| server.script.calls("recipients")).sum();
    assert_eq!(served, answers, "a question was asked twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_server_may_renew_its_connections_under_load() {
    let mut server = Server::start("1").await;
    server.stop().await;
    server.start_again(Some(Duration::from_millis(50))).await;
    let client = client(&[&server]);
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..8 {
        load.spawn(ask_on(Arc::clone(&client), Arc::clone(&stop)));
    }
    server.script.called(3000).await;
    stop.store(true, Ordering::Relaxed);
    let answers: usize = soon(load.join_all()).await.into_iter().sum();
    assert_eq!(server.script.calls("recipients"), answers, "a question was asked twice");
}
