//! HAProxy in front: the client's address must be the client's.

use std::net::SocketAddr;

use torwart_tests::{Client, Gateway, HaProxy, PolicyFile, SendProxy, Upstream, client_address, endpoint};

fn trusting(upstream: SocketAddr) -> Gateway {
    Gateway::builder().flag("--proxy-protocol-from", "127.0.0.0/8").start(&PolicyFile::to(upstream).text())
}

fn address_survives(send: SendProxy) {
    let upstream = Upstream::start();
    let gateway = trusting(upstream.endpoint);
    let haproxy = HaProxy::start(gateway.smtp, send);
    let address = client_address(7);
    let mut client = Client::greeted_from(address, haproxy.endpoint);
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    let line = gateway.transaction("the message", |_| true);
    assert_eq!(line["client"], address.to_string(), "{line}");
    assert_eq!(line["client_port"], client.local_address().port(), "{line}");
    let content = String::from_utf8_lossy(&upstream.received()[0].content).into_owned();
    assert!(content.contains(&format!("[{address}]")), "{content}");
}

#[test]
fn the_client_address_comes_through_haproxy_in_version_2() {
    address_survives(SendProxy::V2);
}

#[test]
fn the_client_address_comes_through_haproxy_in_version_1() {
    address_survives(SendProxy::V1);
}

#[test]
fn a_trusted_peer_without_the_header_is_not_served() {
    let upstream = Upstream::start();
    let gateway = trusting(upstream.endpoint);
    let mut client = Client::connect(gateway.smtp);
    client.send("EHLO client.sender.example\r\n");
    let replies = client.rest();
    assert!(replies.iter().all(|reply| !reply.is_positive()), "{replies:?}");
}

#[test]
fn a_header_from_a_peer_that_is_not_trusted_changes_no_address() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = Client::connect(gateway.smtp);
    client.expect(220);
    let reply = client.command("PROXY TCP4 198.51.100.1 192.0.2.1 1000 25");
    assert!(!reply.is_positive(), "{reply}");
    client.ask(250, "EHLO client.sender.example");
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    let line = gateway.transaction("the message", |_| true);
    assert_eq!(line["client"], "127.0.0.1", "{line}");
}

#[test]
fn headers_that_are_none_end_the_connection() {
    let upstream = Upstream::start();
    let gateway = trusting(upstream.endpoint);
    let headers: [&[u8]; 7] = [
        b"PROXY TCP4 198.51.100.1 192.0.2.1 1000\r\n",
        b"PROXY TCP4 198.51.100.256 192.0.2.1 1000 25\r\n",
        b"PROXY TCP4 198.51.100.1 192.0.2.1 1000 25\n",
        // Longer than the 107 octets that version 1 can have.
        &[b'P'; 200],
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c",
        // Version 2, LOCAL... but of version 3.
        b"\r\n\r\n\0\r\nQUIT\n\x30\x11\x00\x00",
        // TCP over IPv4 whose addresses do not fit.
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04\x7f\x00\x00\x01",
    ];
    for header in headers {
        let mut client = Client::connect(gateway.smtp);
        client.send(header);
        client.close_write();
        let replies = client.rest();
        assert!(replies.iter().all(|reply| !reply.is_positive()), "{header:?}: {replies:?}");
    }
    // The next connection is well.
    let mut client = Client::connect(gateway.smtp);
    client.send("PROXY TCP4 127.200.0.1 127.0.0.1 1000 25\r\n");
    client.expect(220);
}

#[test]
fn a_local_header_is_a_health_check_and_may_close_without_a_word() {
    let upstream = Upstream::start();
    let gateway = trusting(upstream.endpoint);
    let mut client = Client::connect(gateway.smtp);
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
    client.expect(220);
    drop(client);
    // Nothing at all is a probe as well.
    drop(Client::connect(gateway.smtp));
    gateway.wait_metrics("two probes", |metrics| {
        metrics.sum("torwart_smtp_sessions_total", &[("outcome", "probe")]) >= 2.0
    });
}

#[test]
fn a_peer_in_the_load_balancer_s_network_needs_no_header_at_a_direct_door() {
    let upstream = Upstream::start();
    let direct = endpoint();
    let builder = Gateway::builder().flag("--proxy-protocol-from", "127.0.0.0/8");
    let gateway =
        builder.flag("--smtp-listen-direct", direct).start(&PolicyFile::to(upstream.endpoint).text());
    let mut client = Client::greeted_from(client_address(9), direct);
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    let line = gateway.transaction("the message", |_| true);
    assert_eq!(line["client"], client_address(9).to_string(), "{line}");
    // A header is a command that nobody knows there.
    let mut client = Client::connect(direct);
    client.expect(220);
    assert!(!client.command("PROXY TCP4 198.51.100.1 192.0.2.1 1000 25").is_positive());
}
