//! Who speaks before the banner, and who hears less in EHLO.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use torwart_core::{Keyword, Reason, Reply};

use super::harness::{Client, FakeUpstream, Gateway};

/// Longer than a test takes: who waits for it to end waits for ever.
const FOREVER: Duration = Duration::from_secs(50);

#[tokio::test]
async fn who_speaks_during_the_greet_delay_is_known_for_it_and_served_at_once() {
    let upstream = FakeUpstream::obedient().await;
    let mut gateway =
        Gateway::start_with(&[upstream.address], |_, script| script.greet_delay = FOREVER).await;
    let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
    client.send("EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<ok@example.org>\r\n").await;
    client.expect(220).await;
    for _ in 0..3 {
        client.expect(250).await;
    }
    let asked = gateway.script.questions.lock().unwrap().pop().unwrap();
    assert!(asked.peer.early_talker);
    client.say("QUIT", 221).await;
    let line = gateway.line().await;
    assert_eq!((&line["early_talker"], &line["recipients"][0]["code"]), (&true.into(), &250.into()));
}

#[tokio::test]
async fn who_waits_for_the_banner_is_no_early_talker() {
    for delay in [0, 10] {
        let mut gateway =
            Gateway::start_with(&[], |_, script| script.greet_delay = Duration::from_millis(delay)).await;
        let mut client = gateway.client().await;
        client.begin(&[]).await;
        client.say("RCPT TO:<grey@example.org>", 450).await;
        client.say("QUIT", 221).await;
        assert_eq!(gateway.line().await["early_talker"], false);
        assert!(!gateway.script.questions.lock().unwrap()[0].peer.early_talker);
    }
}

#[tokio::test]
async fn what_comes_along_with_a_proxy_header_came_before_the_banner() {
    let mut gateway = Gateway::start_with(&[], |settings, _| {
        settings.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for (more, early) in [("EHLO client.example\r\n", true), ("", false)] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let header = format!("PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n{more}");
        stream.write_all(header.as_bytes()).await.unwrap();
        let mut client = Client::new(stream);
        client.expect(220).await;
        if early {
            client.expect(250).await;
        }
        client.begin(&[]).await;
        client.say("RCPT TO:<grey@example.org>", 450).await;
        client.say("QUIT", 221).await;
        let line = gateway.line().await;
        assert_eq!((&line["client"], &line["early_talker"]), (&"192.0.2.7".into(), &early.into()));
    }
}

#[tokio::test]
async fn without_a_delay_what_waits_in_the_socket_counts() {
    // the words are there before the session begins, since nothing is awaited in between
    let upstream = FakeUpstream::obedient().await;
    for (early, words) in [(true, "NOOP\r\n"), (false, "")] {
        let gateway = Gateway::start(&[upstream.address]).await;
        let mut stream = std::net::TcpStream::connect(gateway.address()).unwrap();
        std::io::Write::write_all(&mut stream, words.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut client = Client::new(TcpStream::from_std(stream).unwrap());
        client.expect(220).await;
        if early {
            client.expect(250).await;
        }
        client.say("QUIT", 221).await;
        let mut gateway = gateway;
        let line = gateway.line().await;
        assert_eq!((&line["event"], &line["early_talker"]), (&"session".into(), &early.into()));
    }
}

#[tokio::test]
async fn a_refusal_at_the_banner_and_a_drain_wait_for_nobody() {
    let refusal = (Reply::new(554, (5, 7, 1), "no"), Reason::IpRange);
    let gateway = Gateway::start_with(&[], |_, script| {
        script.greet_delay = FOREVER;
        script.refuse_connection = Some(refusal);
    })
    .await;
    let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
    client.expect(554).await;

    let mut gateway = Gateway::start_with(&[], |_, script| script.greet_delay = FOREVER).await;
    let mut client = Client::new(TcpStream::connect(gateway.address()).await.unwrap());
    while gateway.script.connections_asked.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    gateway.stop().await;
    client.expect(220).await;
    client.expect(421).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_the_delay_was_a_probe() {
    let mut gateway = Gateway::start_with(&[], |_, script| script.greet_delay = FOREVER).await;
    drop(TcpStream::connect(gateway.address()).await.unwrap());
    assert_eq!(gateway.line().await["outcome"], "probe");
}

#[tokio::test]
async fn a_hidden_keyword_is_not_offered_and_works() {
    let mut upstream = FakeUpstream::obedient().await;
    let gateway = Gateway::start_with(&[upstream.address], |_, script| {
        script.hidden = vec![Keyword::Chunking, Keyword::EightBitMime];
    })
    .await;
    let mut client = gateway.client().await;
    let offered = client.say("EHLO client.example", 250).await;
    assert_eq!(
        offered,
        "250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 ENHANCEDSTATUSCODES\r\n"
    );
    client.say("MAIL FROM:<> BODY=8BITMIME", 250).await;
    client.say("RCPT TO:<ok@example.org>", 250).await;
    client.send("BDAT 3 LAST\r\n\u{fc}\r").await;
    client.expect(550).await;
    client.say("MAIL FROM:<> BODY=8BITMIME", 250).await;
    client.say("RCPT TO:<ok@example.org>", 250).await;
    client.send("BDAT 4 LAST\r\n\u{fc}\r\n").await;
    client.expect(250).await;
    assert!(upstream.any_message().await.ends_with("\u{fc}\r\n"));
}

#[tokio::test]
async fn all_keywords_are_known_on_both_sides() {
    let gateway = Gateway::start_with(&[], |_, script| script.hidden = Keyword::ALL.to_vec()).await;
    let mut client = gateway.client().await;
    assert_eq!(client.say("EHLO client.example", 250).await, "250 mx.example.net\r\n");
    let gateway = Gateway::start(&[]).await;
    let offered = gateway.client().await.say("EHLO client.example", 250).await;
    for keyword in Keyword::ALL {
        assert!(offered.contains(keyword.as_str()), "{keyword:?} {offered}");
    }
}
