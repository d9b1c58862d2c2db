//! Silence. The limits are minutes (RFC 5321 section 4.5.3.2), so these are run apart: `tests/run` does, unless
//! it is told to be quick.

use std::net::TcpListener;
use std::time::Duration;

use torwart_tests::{Act, Client, Gateway, PolicyFile, Step, Upstream, endpoint};

/// The longest limit is five minutes.
const LONG: Duration = Duration::from_secs(6 * 60);

fn patient(client: &Client) {
    client.stream().set_read_timeout(Some(LONG)).unwrap();
}

#[test]
#[ignore = "takes five minutes"]
fn silence_ends_with_421_wherever_it_falls() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut silent = Client::connect(gateway.smtp);
    silent.expect(220);
    let mut halfway = gateway.client();
    halfway.send("MAIL FR");
    let mut between = gateway.client();
    between.ask(250, "MAIL FROM:<anna@sender.example>");
    between.ask(250, "RCPT TO:<bert@example.org>");
    let mut within = gateway.client();
    within.ask(250, "MAIL FROM:<anna@sender.example>");
    within.ask(250, "RCPT TO:<bert@example.org>");
    within.ask(354, "DATA");
    within.send("Subject: half");
    for client in [&mut within, &mut silent, &mut halfway, &mut between] {
        patient(client);
        let reply = client.expect(421);
        assert_eq!(reply.enhanced(), "4.4.2", "{reply}");
        client.expect_close();
    }
    assert!(upstream.received().is_empty());
    assert_eq!(gateway.client().mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
}

#[test]
#[ignore = "takes a minute or more"]
fn an_upstream_that_falls_silent_is_a_deferral() {
    let steps = [Step::Banner, Step::Ehlo, Step::Mail, Step::Rcpt];
    let gone: Vec<_> = steps
        .into_iter()
        .map(|step| {
            std::thread::spawn(move || {
                let upstream = Upstream::start();
                upstream.fail_always(step, Act::Hang);
                let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
                let mut client = gateway.client();
                patient(&client);
                let reply = client.mail("anna@sender.example", &["bert@example.org"], b"\r\n");
                assert!(reply.is_temporary(), "{step:?}: {reply}");
                client.ask(250, "NOOP");
            })
        })
        .collect();
    for thread in gone {
        thread.join().unwrap();
    }
}

#[test]
#[ignore = "takes a minute"]
fn a_recipient_has_its_reply_after_a_minute_over_all_upstreams() {
    // Each would be waited for longer than its share: the system accepts connections to them, and nobody speaks.
    let silent: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind(endpoint()).unwrap()).collect();
    let mut upstreams = silent.iter().map(|listener| listener.local_addr().unwrap());
    let first = PolicyFile::to(upstreams.next().unwrap());
    let gateway = Gateway::start(&upstreams.fold(first, PolicyFile::upstream));
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.send("RCPT TO:<bert@example.org>\r\n");
    client.stream().set_read_timeout(Some(Duration::from_secs(75))).unwrap();
    client.expect(451);
}
