//! What a session holds while it waits. The session is driven from inside the test, so that it can be looked at.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::message::read_piece;
use super::*;
use crate::Settings;
use crate::tests::harness::{Client, FakeUpstream, Script, mail_log};

async fn connection(upstream: &FakeUpstream) -> (Connection<DuplexStream>, Client<DuplexStream>) {
    let registry = prometheus::Registry::new();
    let (log, _writer, _lines) = mail_log(&registry);
    let verdicts = Arc::new(Script::new(&[upstream.address]).0);
    let shared = Arc::new(Shared::new(&Settings::default(), verdicts, log, None, &registry).unwrap());
    let (ours, theirs) = tokio::io::duplex(4096);
    let address: SocketAddr = "192.0.2.1:4711".parse().unwrap();
    let network = shared.permits.network(address.ip());
    (open::open(shared, ours, address, network).await.unwrap(), Client::new(theirs))
}

/// The session has acted on everything that was sent when this is done: it is polled before its client.
async fn until_it_waits(connection: &mut Connection<DuplexStream>, client: impl Future<Output = ()>) {
    let client = async {
        client.await;
        tokio::task::yield_now().await;
    };
    tokio::select! {
        biased;
        outcome = connection.run() => panic!("the session ended: {outcome:?}"),
        () = client => {}
    }
}

#[tokio::test]
async fn a_client_that_stops_in_its_message_costs_no_buffer() {
    let upstream = FakeUpstream::obedient().await;
    for body in ["\0", "Subject: sound\r\n\r\n"] {
        let (mut connection, mut client) = connection(&upstream).await;
        until_it_waits(&mut connection, async {
            client.expect(220).await;
            client.begin(&["ok"]).await;
            client.say("DATA", 354).await;
            client.send(body).await;
            client.send(&"y".repeat(32 * 1024)).await;
        })
        .await;
        assert_eq!(connection.input.capacity(), 0, "{body:?}");
        assert_eq!(connection.session.output().capacity(), 0, "{body:?}");
    }
}

#[tokio::test]
async fn buffers_stay_while_bytes_come_and_go_while_none_do() {
    let (mut ours, mut theirs) = tokio::io::duplex(100);
    let (mut input, mut body) = (Vec::new(), Vec::with_capacity(500));
    theirs.write_all(b"one").await.unwrap();
    assert_eq!(read_piece(&mut ours, &mut input, &mut body).await.unwrap(), 3);
    assert_eq!((input.as_slice(), body.capacity()), (b"one".as_slice(), 500));
    input.clear();
    tokio::select! {
        biased;
        _ = read_piece(&mut ours, &mut input, &mut body) => panic!("nothing was sent"),
        () = std::future::ready(()) => {}
    }
    assert_eq!((input.capacity(), body.capacity()), (0, 0));
    drop(theirs);
    assert_eq!(read_piece(&mut ours, &mut input, &mut body).await.unwrap(), 0);
    assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_there_during_a_message_is_small() {
    let upstream = FakeUpstream::obedient().await;
    let (mut connection, _client) = connection(&upstream).await;
    let size = size_of_val(&connection.message());
    println!("the future of a message takes {size} bytes");
    assert!(size <= 4096, "the future of a message takes {size} bytes");
}
