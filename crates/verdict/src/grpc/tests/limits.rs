use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy::{HEADERS, Proxy, RST_STREAM};
use super::raw::raw;
use super::*;

/// A server whose store answers when it is released.
async fn start_hanging(change: impl FnOnce(&mut GrpcSettings)) -> (Setup, Arc<BrokenStore>) {
    let store = mk_broken(true);
    (start_with(Some(store.clone()), change).await, store)
}

#[tokio::test]
async fn one_call_too_many_is_refused_before_anything_is_done_and_probes_are_answered() {
    let (setup, store) = start_hanging(|settings| settings.max_calls = 2).await;
    let mut calls = Vec::new();
    for _ in 0..2 {
        let mut client = setup.verdict();
        calls.push(tokio::spawn(
            async move { client.check_recipients(recipients_request(CLIENT, &[BOB])).await },
        ));
    }
    until(|| setup.in_flight() == 2).await;
    let mut client = setup.verdict();
    let refused = patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(is_not_done(&refused), "{refused}");
    let refused = patiently(client.check_connection(connection_request(CLIENT))).await.err().unwrap();
    assert_eq!((refused.code(), is_not_done(&refused)), (Code::ResourceExhausted, true));
    assert_eq!((setup.in_flight(), setup.calls_refused("overload")), (2, 2));
    assert_eq!(setup.metric("torwart_store_seconds_count{op=\"check\"}"), 0);
    let status = patiently(setup.status().get_status(v1::GetStatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.policy.unwrap().revision, "r1");
    store.released.cancel();
    for call in calls {
        patiently(call).await.unwrap().unwrap();
    }
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
}

#[tokio::test]
async fn a_call_that_was_given_up_makes_room() {
    let (setup, _store) = start_hanging(|settings| settings.max_calls = 1).await;
    let mut client = setup.verdict();
    let call = tokio::spawn(async move { client.check_recipients(recipients_request(CLIENT, &[BOB])).await });
    until(|| setup.in_flight() == 1).await;
    call.abort();
    until(|| setup.in_flight() == 0).await;
    patiently(setup.verdict().check_connection(connection_request(CLIENT))).await.unwrap();
}

#[tokio::test]
async fn a_call_ends_at_its_clients_limit_or_else_at_the_servers() {
    for (asked, call_limit) in
        [(Some("30m"), PATIENCE), (Some("1H"), Duration::from_millis(30)), (None, Duration::from_millis(30))]
    {
        let (setup, _store) = start_hanging(|settings| settings.call_limit = call_limit).await;
        let (mut client, _connection) = raw(setup.address).await;
        let mut request = Request::new(recipients_request(CLIENT, &[BOB]));
        if let Some(asked) = asked {
            request.metadata_mut().insert("grpc-timeout", asked.parse().unwrap());
        }
        let status = patiently(client.check_recipients(request)).await.err().unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(!is_not_done(&status), "the store may have been asked");
        assert_eq!((setup.in_flight(), setup.calls_refused("deadline")), (0, 1));
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_connection_lives() {
    let setup = start().await;
    let (mut client, connection) = raw(setup.address).await;
    let mut request = recipients_request(CLIENT, &[BOB]);
    request.recipients[0].local = "x".repeat(LONGEST_MESSAGE);
    let status = patiently(client.check_recipients(request)).await.err().unwrap();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn whoever_says_nothing_holds_up_nobody_and_is_closed() {
    let setup = start_with(None, |settings| settings.silence_limit = Duration::from_millis(200)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(setup.address).await.unwrap());
    }
    until(|| setup.connections() == 20).await;
    let mut client = setup.verdict();
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    for mut stream in silent {
        // The server's own first words, and the end.
        let _ = patiently(stream.read_to_end(&mut Vec::new())).await;
    }
    assert_eq!(setup.connections_refused("silent"), 20);
    until(|| setup.connections() == 1).await;
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_are_served() {
    let setup = start_with(None, |settings| settings.max_connections = 1).await;
    let (mut client, connection) = raw(setup.address).await;
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    let mut other = TcpStream::connect(setup.address).await.unwrap();
    assert_eq!(patiently(other.read(&mut [0; 100])).await.unwrap_or(0), 0);
    assert_eq!((setup.connections_refused("limit"), setup.connections()), (1, 1));
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    connection.abort();
    drop(client);
    until(|| setup.connections() == 0).await;
    let (mut client, _connection) = raw(setup.address).await;
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
}

#[tokio::test]
async fn calls_given_up_all_at_once_do_not_cost_the_others_their_connection() {
    let setup = start().await;
    let proxy = Proxy::start(setup.address).await;
    let (mut client, connection) = raw(proxy.address).await;
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    // Acknowledgements of what came before have been said by then; a question's frames are whole.
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    proxy.hold();
    let mut calls = Vec::new();
    for _ in 0..200 {
        let mut client = client.clone();
        calls.push(tokio::spawn(
            async move { client.check_recipients(recipients_request(CLIENT, &[BOB])).await },
        ));
    }
    until(|| proxy.count(HEADERS) == 200).await;
    let kept = calls.pop().unwrap();
    for call in calls {
        call.abort();
    }
    until(|| proxy.count(RST_STREAM) == 199).await;
    proxy.let_go();
    patiently(kept).await.unwrap().unwrap();
    patiently(client.check_recipients(recipients_request(CLIENT, &[BOB]))).await.unwrap();
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_and_its_call_is_finished() {
    let (setup, store) = start_hanging(|settings| {
        settings.silence_limit = Duration::from_millis(50);
        settings.max_connection_age = Duration::from_millis(50);
    })
    .await;
    let (mut client, connection) = raw(setup.address).await;
    let mut again = client.clone();
    let call = tokio::spawn(async move { client.check_recipients(recipients_request(CLIENT, &[BOB])).await });
    until(|| setup.in_flight() == 1).await;
    // Answered until the GOAWAY has come.
    let refused = patiently(async {
        loop {
            if let Err(status) = again.check_connection(connection_request(CLIENT)).await {
                return status;
            }
        }
    })
    .await;
    assert!(is_not_done(&refused), "{refused:?}");
    store.released.cancel();
    patiently(call).await.unwrap().unwrap();
    drop(again);
    patiently(connection).await.unwrap().unwrap();
    until(|| setup.connections() == 0).await;
}
