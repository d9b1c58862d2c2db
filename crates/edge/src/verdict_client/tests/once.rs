//! Routes are fetched once, and reports arrive once or are counted as lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;
use tonic::Status;
use torwart_core::{RouteDigest, UnavailableKind, Verdicts};
use torwart_proto::channel::not_done;

use super::harness::{Behaviour, Server, client, connection, delivery, recipients, route, soon};

#[tokio::test]
async fn a_route_is_fetched_once_however_many_ask() {
    let server = Server::start("1").await;
    server.script.knows(route(7));
    let client = client(&[&server]);
    let mut asking = JoinSet::new();
    for _ in 0..50 {
        let client = Arc::clone(&client);
        asking.spawn(async move { client.route(RouteDigest([7; 16])).await.unwrap() });
    }
    for found in soon(asking.join_all()).await {
        assert_eq!(*found, route(7));
    }
    client.route(RouteDigest([7; 16])).await.unwrap();
    assert_eq!(server.script.calls("route"), 1);
}

#[tokio::test]
async fn a_route_is_asked_of_who_named_it() {
    let servers = [Server::start("1").await, Server::start("2").await, Server::start("3").await];
    let client = client(&[&servers[0], &servers[1], &servers[2]]);
    for _ in 0..3 {
        client.check_connection(connection()).await.unwrap(); // all are proven
    }
    // a new policy has come to one of them
    servers[2].script.knows(route(9));
    soon(async {
        while client.check_recipients(recipients()).await.unwrap().recipients[0].route.is_none() {}
    })
    .await;
    client.route(RouteDigest([9; 16])).await.unwrap();
    assert_eq!(servers.each_ref().map(|server| server.script.calls("route")), [0, 0, 1]);
}

#[tokio::test]
async fn a_route_that_one_does_not_know_is_asked_of_the_others() {
    let servers = [Server::start("1").await, Server::start("2").await, Server::start("3").await];
    servers[2].script.knows(route(9));
    for _ in 0..10 {
        let client = client(&[&servers[0], &servers[1], &servers[2]]);
        assert_eq!(*client.route(RouteDigest([9; 16])).await.unwrap(), route(9));
        let error = client.route(RouteDigest([8; 16])).await.unwrap_err();
        assert_eq!(error.kind, UnavailableKind::UnknownRoute);
    }
}

#[tokio::test]
async fn a_report_that_was_not_taken_is_brought_elsewhere_once() {
    let [a, b] = [Server::start("1").await, Server::start("2").await];
    a.script.set(Behaviour::Fail(not_done(Status::unavailable("going down"))));
    let both = client(&[&a, &b]);
    for _ in 0..10 {
        both.report_delivery(delivery()).await;
    }
    assert_eq!(b.script.state().reported.load(Ordering::Relaxed), 10);
    assert_eq!(both.metrics.reports_lost.get(), 0);
}

#[tokio::test]
async fn a_report_that_may_have_been_taken_is_not_brought_again() {
    let servers = [Server::start("1").await, Server::start("2").await];
    for server in &servers {
        server.script.set(Behaviour::Fail(Status::internal("who knows")));
    }
    let client = client(&[&servers[0], &servers[1]]);
    client.report_delivery(delivery()).await;
    let calls: usize = servers.iter().map(|server| server.script.all_calls()).sum();
    assert_eq!((calls, client.metrics.reports_lost.get()), (1, 1));
}

#[tokio::test]
async fn a_lost_report_is_counted_also_when_its_caller_gives_it_up() {
    let mut server = Server::start("1").await;
    server.script.set(Behaviour::Hang);
    let client = client(&[&server]);
    tokio::select! {
        () = client.report_delivery(delivery()) => unreachable!(),
        () = server.script.called(1) => {}
    }
    assert_eq!(client.metrics.reports_lost.get(), 1);
    server.kill();
    client.report_delivery(delivery()).await;
    assert_eq!(client.metrics.reports_lost.get(), 2);
}
