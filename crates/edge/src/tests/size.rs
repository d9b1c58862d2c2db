//! What an idle session costs, and what time does to one. Virtual time, no sockets.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use torwart_core::Verdicts;

use super::harness::{Client, Script, mail_log};
use crate::Settings;
use crate::connection::serve;
use crate::edge::Shared;

/// What the design allows.
const IDLE_FUTURE: usize = 2048;

fn shared() -> (Arc<Shared>, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let registry = Registry::new();
    let (log, _writer, lines) = mail_log(&registry);
    let (script, _reported) = Script::new(&[]);
    let verdicts = Arc::new(script) as Arc<dyn Verdicts>;
    (Arc::new(Shared::new(&Settings::default(), verdicts, log, None, &registry).unwrap()), lines)
}

fn session(shared: &Arc<Shared>) -> Client<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(4096);
    let address = "192.0.2.1:4711".parse().unwrap();
    let permits = (shared.permits.total().unwrap(), shared.permits.network("192.0.2.1".parse().unwrap()));
    tokio::spawn(serve(Arc::clone(shared), theirs, address, permits));
    Client::new(ours)
}

#[tokio::test]
async fn the_future_of_a_session_is_small() {
    let (shared, _lines) = shared();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let future = serve(Arc::clone(&shared), stream, address, (shared.permits.total().unwrap(), None));
    let size = size_of_val(&future);
    println!("the future takes {size} bytes");
    assert!(size <= IDLE_FUTURE, "the future takes {size} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_hears_421_after_five_minutes() {
    let (shared, mut lines) = shared();
    let mut client = session(&shared);
    client.expect(220).await;
    let started = tokio::time::Instant::now();
    let reply = tokio::time::timeout(Duration::from_secs(600), client.expect_patiently(421)).await.unwrap();
    assert!(reply.starts_with("421 4.4.2 "), "{reply}");
    assert_eq!(started.elapsed().as_secs(), 300);
    let line = lines.recv().await.unwrap();
    assert!(line.contains(r#""outcome":"timeout""#), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_takes_too_long_is_451() {
    let (shared, _lines) = shared();
    let mut client = session(&shared);
    client.expect(220).await;
    client.begin(&[]).await;
    let started = tokio::time::Instant::now();
    client.say("RCPT TO:<hang@example.org>", 451).await;
    assert_eq!(started.elapsed().as_secs(), 5);
}
