use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::raw::raw;
use super::tls::Authority;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_down_under_load_loses_no_call() {
    for delay in [0, 30] {
        let setup = start_with(None, |settings| settings.drain_delay = Duration::from_millis(delay)).await;
        let channels = (0..8).map(|_| setup.channel()).collect();
        stop_under_load(setup, channels).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_encrypts() {
    let authority = Authority::new();
    let setup = authority.start().await;
    let channels = (0..4).map(|_| authority.channel(&setup)).collect();
    stop_under_load(setup, channels).await;
}

/// Four calls at a time on each channel; each is answered or surely not done.
async fn stop_under_load(setup: Setup, channels: Vec<Channel>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let refused = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for (worker, channel) in channels.into_iter().enumerate() {
        for call in 0..4 {
            let mut client = VerdictServiceClient::new(channel.clone());
            let (is_over, answered, refused) = (is_over.clone(), answered.clone(), refused.clone());
            let request = recipients_request(&format!("192.0.{worker}.{call}"), &[BOB]);
            workers.push(tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    match client.check_recipients(request.clone()).await {
                        Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(status) if is_not_done(&status) => refused.fetch_add(1, Ordering::Relaxed),
                        Err(status) => panic!("neither answered nor surely not done: {status:?}"),
                    };
                }
            }));
        }
    }
    until(|| answered.load(Ordering::Relaxed) > 500).await;
    setup.stop().await;
    until(|| refused.load(Ordering::Relaxed) > 100).await;
    is_over.store(true, Ordering::Relaxed);
    for worker in workers {
        patiently(worker).await.unwrap();
    }
}

#[tokio::test]
async fn calls_under_way_are_finished_and_later_ones_are_not_begun() {
    let store = mk_broken(true);
    let setup = start_with(Some(store.clone()), |_| {}).await;
    let (mut client, connection) = raw(setup.address).await;
    let mut late = client.clone();
    let call = tokio::spawn(async move { client.check_recipients(recipients_request(CLIENT, &[BOB])).await });
    until(|| setup.in_flight() == 1).await;
    setup.shutdown.cancel();
    let refused = patiently(async {
        loop {
            if let Err(status) = late.check_connection(connection_request(CLIENT)).await {
                return status;
            }
        }
    })
    .await;
    assert!(is_not_done(&refused), "{refused:?}");
    let refused =
        patiently(setup.verdict().check_connection(connection_request(CLIENT))).await.err().unwrap();
    assert!(is_not_done(&refused), "the port is closed: {refused:?}");
    assert!(!setup.serving.is_finished());
    store.released.cancel();
    patiently(call).await.unwrap().unwrap();
    patiently(setup.serving).await.unwrap();
    drop(late);
    patiently(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn while_edges_learn_of_it_calls_and_connections_are_served_as_before() {
    let setup = start_with(None, |settings| settings.drain_delay = 10 * PATIENCE).await;
    let mut client = setup.verdict();
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    setup.shutdown.cancel();
    let mut health = tonic_health::pb::health_client::HealthClient::new(setup.channel());
    until_not_serving(&mut health).await;
    for mut client in [client, setup.verdict()] {
        patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    }
    assert!(!setup.serving.is_finished());
}

async fn until_not_serving(health: &mut tonic_health::pb::health_client::HealthClient<Channel>) {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;

    patiently(async {
        loop {
            let answer = health.check(HealthCheckRequest { service: String::new() }).await.unwrap();
            if answer.into_inner().status() == ServingStatus::NotServing {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_and_may_have_been_done() {
    let store = mk_broken(true);
    let setup = start_with(Some(store), |settings| settings.drain_timeout = Duration::from_millis(50)).await;
    let (mut client, _connection) = raw(setup.address).await;
    let call = tokio::spawn(async move { client.check_recipients(recipients_request(CLIENT, &[BOB])).await });
    until(|| setup.in_flight() == 1).await;
    setup.stop().await;
    let status = patiently(call).await.unwrap().err().unwrap();
    assert!(!is_not_done(&status), "{status:?}");
}

#[tokio::test]
async fn idle_connections_and_watchers_do_not_hold_up_the_end() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let setup = start().await;
    let (mut idle, connection) = raw(setup.address).await;
    patiently(idle.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    let mut health = HealthClient::new(setup.channel());
    let mut watch =
        patiently(health.watch(HealthCheckRequest { service: String::new() })).await.unwrap().into_inner();
    patiently(watch.message()).await.unwrap().unwrap();
    setup.stop().await;
    while patiently(watch.message()).await.unwrap().is_some() {}
    drop(idle);
    patiently(connection).await.unwrap().unwrap();
}
