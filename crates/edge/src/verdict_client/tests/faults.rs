//! What is 451: nobody there, a death in mid call, nonsense, too much at once.

use std::time::Duration;

use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::Status;
use torwart_core::{RouteDigest, UnavailableKind, Verdicts};

use super::harness::{
    Behaviour, SLICE, Server, client, connection, recipients, route, settings, soon, start,
};
use crate::verdict_client::metrics::FailureKind;
use crate::verdict_client::{ClientError, ClientSettings, VerdictClient};

#[tokio::test]
async fn with_nobody_there_the_answer_is_that_there_is_none() {
    let mut server = Server::start("1").await;
    server.kill();
    let client = client(&[&server]);
    let error = client.check_recipients(recipients()).await.unwrap_err();
    assert_eq!(error.kind, UnavailableKind::Unanswered);
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    assert!(client.check_connection(connection()).await.is_err());
    assert!(client.route(RouteDigest([1; 16])).await.is_err());
    assert!(client.metrics.failures(FailureKind::Connect) >= 3);
}

#[tokio::test]
async fn what_a_server_that_died_in_mid_call_may_have_done_is_not_asked_again() {
    let mut servers = [Server::start("1").await, Server::start("2").await];
    for server in &servers {
        server.script.set(Behaviour::Hang);
    }
    let client = client(&[&servers[0], &servers[1]]);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.check_recipients(recipients()).await }
    });
    let asked = tokio::select! {
        () = servers[0].script.called(1) => 0,
        () = servers[1].script.called(1) => 1,
    };
    servers[1 - asked].script.set(Behaviour::Answer);
    servers[asked].kill();
    let error = soon(asking).await.unwrap().unwrap_err();
    assert_eq!(error.kind, UnavailableKind::Unanswered);
    assert_eq!(servers[1 - asked].script.all_calls(), 0);
    assert_eq!(client.metrics.failures(FailureKind::Transport), 1);
}

#[tokio::test]
async fn a_question_without_effect_is_asked_again_when_its_server_dies() {
    let mut servers = [Server::start("1").await, Server::start("2").await];
    for server in &servers {
        server.script.set(Behaviour::Hang);
    }
    let mut settings = settings(&[&servers[0], &servers[1]]);
    settings.slice = Duration::from_secs(3600); // it is the death that is noticed, not the silence
    let client = start(settings);
    let asking = tokio::spawn(async move { client.check_connection(connection()).await });
    let asked = tokio::select! {
        () = servers[0].script.called(1) => 0,
        () = servers[1].script.called(1) => 1,
    };
    servers[1 - asked].script.set(Behaviour::Answer);
    servers[asked].kill();
    soon(asking).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failure_that_may_have_left_something_behind_is_not_asked_again() {
    for status in [
        Status::unavailable("going down"),
        Status::internal("oops"),
        Status::unknown("?"),
        Status::resource_exhausted("while at it"),
        Status::invalid_argument("recipients"),
    ] {
        let servers = [Server::start("1").await, Server::start("2").await];
        for server in &servers {
            server.script.set(Behaviour::Fail(status.clone()));
        }
        let client = client(&[&servers[0], &servers[1]]);
        assert!(client.check_recipients(recipients()).await.is_err());
        let calls: usize = servers.iter().map(|server| server.script.all_calls()).sum();
        assert_eq!(calls, 1, "{status}");
    }
}

#[tokio::test]
async fn the_only_server_has_until_the_deadline_and_no_longer() {
    let server = Server::start("1").await;
    server.script.set(Behaviour::Hang);
    let client = client(&[&server]);
    let error = soon(client.check_connection(connection())).await.unwrap_err();
    assert_eq!(error.kind, UnavailableKind::Unanswered);
    assert_eq!(client.metrics.failures(FailureKind::Timeout), 1);
    assert_eq!(server.script.all_calls(), 1);
}

#[tokio::test]
async fn a_question_that_its_caller_gives_up_speaks_against_who_kept_it_waiting() {
    let server = Server::start("1").await;
    server.script.set(Behaviour::Hang);
    let mut settings = settings(&[&server]);
    settings.ejection = Duration::from_secs(3600);
    settings.longest_ejection = settings.ejection;
    let client = start(settings);
    // given up early, it says nothing
    for _ in 0..5 {
        let before = server.script.all_calls();
        tokio::select! {
            _ = client.check_recipients(recipients()) => unreachable!(),
            () = server.script.called(before + 1) => {}
        }
    }
    assert_eq!(client.metrics.counted(super::super::balancer::Standing::Ejected), 0);
    for _ in 0..3 {
        assert!(tokio::time::timeout(SLICE * 2, client.check_recipients(recipients())).await.is_err());
    }
    assert_eq!(client.metrics.counted(super::super::balancer::Standing::Ejected), 1);
}

#[tokio::test]
async fn answers_that_do_not_fit_the_question_are_none() {
    let server = Server::start("1").await;
    server.script.knows(route(1));
    server.script.set(Behaviour::Nonsense);
    let client = client(&[&server]);
    assert!(client.check_recipients(recipients()).await.is_err());
    assert!(client.route(RouteDigest([1; 16])).await.is_err());
    assert_eq!(client.metrics.failures(FailureKind::Malformed), 2);
    // and nothing of them was kept
    server.script.set(Behaviour::Answer);
    assert_eq!(*client.route(RouteDigest([1; 16])).await.unwrap(), route(1));
}

#[tokio::test]
async fn who_does_not_speak_grpc_is_not_the_verdict() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    let client = start(ClientSettings::new(vec![format!("http://{address}").parse().unwrap()]));
    let error = soon(client.check_recipients(recipients())).await.unwrap_err();
    assert_eq!(error.kind, UnavailableKind::Unanswered);
    // Nothing left this side, so it could be asked again.
    assert_eq!(client.metrics.failures(FailureKind::Connect), 3);
    server.abort();
}

#[tokio::test]
async fn more_questions_than_allowed_are_not_asked() {
    let server = Server::start("1").await;
    server.script.set(Behaviour::Hang);
    let mut settings = settings(&[&server]);
    settings.max_calls = 2;
    let client = start(settings);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.check_recipients(recipients()).await })
        })
        .collect();
    server.script.called(2).await;
    let error = client.check_recipients(recipients()).await.unwrap_err();
    assert_eq!(error.kind, UnavailableKind::Overloaded);
    assert_eq!(client.metrics.failures(FailureKind::Limit), 1);
    for task in waiting {
        task.abort();
        let _ = task.await;
    }
    server.script.set(Behaviour::Answer);
    client.check_recipients(recipients()).await.unwrap();
    assert_eq!(server.script.all_calls(), 3);
}

#[tokio::test]
async fn https_without_certificate_files_and_no_url_at_all_are_mistakes() {
    let start = |settings| VerdictClient::start(settings, &Registry::new()).err().unwrap();
    assert!(matches!(start(ClientSettings::new(Vec::new())), ClientError::NoUrl));
    let settings = ClientSettings::new(vec!["https://verdict:9901".parse().unwrap()]);
    let error = start(settings).to_string();
    assert!(error.contains("--verdict https://verdict:9901") && error.contains("--verdict-ca"), "{error}");
}
