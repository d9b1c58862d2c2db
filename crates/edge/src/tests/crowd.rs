//! Clients that hold an upstream's connections and say nothing, while others want to deliver.

use std::time::Duration;

use tokio::net::TcpStream;

use super::harness::{Answers, Client, FakeUpstream, Gateway};

/// The upstream's `maxConnections` (see the harness).
const SLOTS: u8 = 20;

async fn mk_gateway(upstream: &FakeUpstream) -> Gateway {
    Gateway::start_with(&[upstream.address], |settings, _| {
        settings.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
        settings.upstream.patience = Duration::from_millis(20);
    })
    .await
}

/// A client of a network of its own.
async fn mk_client(gateway: &Gateway, network: u8) -> Client<TcpStream> {
    let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
    client.send(&format!("PROXY TCP4 192.0.{network}.7 192.0.2.1 4711 25\r\n")).await;
    client.expect(220).await;
    client
}

/// As many as there are slots, each with an accepted recipient.
async fn mk_crowd(gateway: &Gateway) -> Vec<Client<TcpStream>> {
    let mut crowd = Vec::new();
    for network in 0..SLOTS {
        let mut client = mk_client(gateway, network).await;
        client.begin(&["ok", "second"]).await;
        crowd.push(client);
    }
    crowd
}

async fn deliver(client: &mut Client<TcpStream>, text: &str) {
    client.say("DATA", 354).await;
    client.say(&format!("{text}\r\n."), 250).await;
}

#[tokio::test]
async fn clients_that_fall_silent_before_data_give_way_and_deliver_later() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = mk_gateway(&upstream).await;
    let mut crowd = mk_crowd(&gateway).await;
    for network in 100..105 {
        let mut victim = mk_client(&gateway, network).await;
        victim.begin(&["ok"]).await;
        deliver(&mut victim, "the victim's").await;
        assert!(upstream.any_message().await.ends_with("the victim's\r\n"));
        victim.say("QUIT", 221).await;
    }
    for (number, client) in crowd.iter_mut().enumerate() {
        if number % 2 == 0 {
            client.say("RCPT TO:<third@example.org>", 250).await;
        }
        deliver(client, &format!("number {number}.")).await;
        assert!(upstream.any_message().await.ends_with(&format!("number {number}.\r\n")));
    }
    assert!(gateway.counts("torwart_messages_total{outcome=\"delivered\"} 25"));
}

#[tokio::test]
async fn clients_that_fall_silent_in_their_message_give_way_and_hear_451() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = mk_gateway(&upstream).await;
    let mut crowd = mk_crowd(&gateway).await;
    for client in &mut crowd {
        client.say("DATA", 354).await;
        client.send("Subject: half\r\n").await;
    }
    let mut victim = mk_client(&gateway, 100).await;
    victim.begin(&["ok"]).await;
    deliver(&mut victim, "the victim's").await;
    assert!(upstream.any_message().await.ends_with("the victim's\r\n"));
    let mut deferred = 0;
    for client in &mut crowd {
        client.send("the rest\r\n.\r\n").await;
        let reply = client.expect_one_of(&[250, 451]).await;
        if reply.starts_with("451") {
            assert!(reply.starts_with("451 4.4.5 "), "{reply}");
            deferred += 1;
        } else {
            assert!(upstream.any_message().await.ends_with("half\r\nthe rest\r\n"));
        }
        client.say("NOOP", 250).await;
    }
    assert_eq!(deferred, 1, "one gave way to one");
    assert!(gateway.counts("torwart_messages_total{outcome=\"delivered\"} 20"));
}

#[tokio::test]
async fn a_message_that_drips_is_as_good_as_none() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = mk_gateway(&upstream).await;
    let mut crowd = mk_crowd(&gateway).await;
    for client in &mut crowd {
        client.say("DATA", 354).await;
    }
    let dripping = async {
        loop {
            for client in &mut crowd {
                client.send("x").await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let delivered = async {
        let mut victim = mk_client(&gateway, 100).await;
        victim.begin(&["ok"]).await;
        deliver(&mut victim, "the victim's").await;
        assert!(upstream.any_message().await.ends_with("the victim's\r\n"));
    };
    tokio::select! {
        () = dripping => {}
        () = delivered => {}
    }
}

#[tokio::test]
async fn without_others_in_line_silence_costs_nothing() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = mk_gateway(&upstream).await;
    let mut client = mk_client(&gateway, 1).await;
    client.begin(&["ok"]).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    client.say("DATA", 354).await;
    client.send("Subject: half\r\n").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    client.say(".", 250).await;
    upstream.hears("MAIL").await;
    assert!(upstream.message().await.ends_with("half\r\n"), "without another MAIL or RSET before it");
}

/// Accepts a sender's second recipient once: the answer after the transaction was begun again is another.
fn moody() -> Answers {
    use std::sync::atomic::{AtomicU8, Ordering};
    static SECONDS: AtomicU8 = AtomicU8::new(0);
    |line| {
        let again = line.contains("<second@") && SECONDS.fetch_add(1, Ordering::Relaxed) >= SLOTS;
        again.then_some("550 5.1.1 gone")
    }
}

#[tokio::test]
async fn another_answer_than_before_is_451() {
    let upstream = FakeUpstream::start(moody()).await;
    let gateway = mk_gateway(&upstream).await;
    let mut crowd = mk_crowd(&gateway).await;
    let mut victim = mk_client(&gateway, 100).await;
    victim.begin(&["ok"]).await;
    deliver(&mut victim, "the victim's").await;
    let mut lost = 0;
    for client in &mut crowd {
        client.send("DATA\r\n").await;
        let reply = client.expect_one_of(&[354, 451]).await;
        if reply.starts_with("451") {
            assert!(reply.starts_with("451 4.3.0 "), "{reply}");
            lost += 1;
        } else {
            client.say(".", 250).await;
        }
    }
    assert_eq!(lost, 1);
}
