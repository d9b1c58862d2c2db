//! A server that speaks HTTP/2 only as far as its test needs it (RFC 9113 section 4.1: nine bytes of head, then the
//! payload).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, 0];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Ends the first call, which has stream 1.
pub(super) fn reset(error: u32) -> Vec<u8> {
    frame(3, 1, &error.to_be_bytes())
}

pub(super) fn goaway(last_stream: u32, error: u32) -> Vec<u8> {
    frame(7, 0, &[last_stream.to_be_bytes(), error.to_be_bytes()].concat())
}

/// Waits for the head of the first call, answers with `answer` and ends the connection; then takes no other.
pub(super) async fn answer_headers_with(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut stream = take_headers(listener).await;
        stream.write_all(&answer).await.unwrap();
        // What is unread would turn the end into a reset, which might overtake the answer.
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    address
}

/// Waits for the head of the first call, and then does nothing more, as a machine that lost its power.
pub(super) async fn vanish_after_headers() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let _stream = take_headers(listener).await;
        std::future::pending::<()>().await;
    });
    address
}

async fn take_headers(listener: TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, &[])).await.unwrap();
    let mut preface = [0; PREFACE];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == HEADERS {
            break;
        }
    }
    stream
}
