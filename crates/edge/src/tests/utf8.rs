//! SMTPUTF8 (RFC 6531): what MAIL said goes along to verdict, upstream and log.

use super::harness::{FakeUpstream, Gateway};

#[tokio::test]
async fn smtputf8_goes_along_with_the_envelope() {
    let mut upstream = FakeUpstream::start(|line| {
        line.starts_with("EHLO").then_some("250-upstream.example\r\n250-8BITMIME\r\n250 SMTPUTF8")
    })
    .await;
    let mut gateway = Gateway::start(&[upstream.address]).await;
    let mut client = gateway.client().await;
    client.say("EHLO client.example", 250).await;
    client.say("MAIL FROM:<zo\u{eb}@example.com>", 553).await;
    client.say("MAIL FROM:<zo\u{eb}@example.com> BODY=8BITMIME SMTPUTF8", 250).await;
    client.say("RCPT TO:<ok@b\u{fc}cher.example>", 250).await;
    client.say("DATA", 354).await;
    client.say("Subject: \u{fc}\r\n.", 250).await;
    client.say("QUIT", 221).await;
    let asked = gateway.script.questions.lock().unwrap().pop().unwrap();
    assert!(asked.envelope.smtputf8);
    assert_eq!(&*asked.recipients[0].domain, "b\u{fc}cher.example");
    let message = upstream.message().await;
    assert!(message.contains(" with UTF8SMTP id "), "{message}");
    assert!(message.contains("\tfor <ok@b\u{fc}cher.example>;"), "{message}");
    let line = gateway.line().await;
    assert_eq!(line["from"], "zo\u{eb}@example.com");
}
