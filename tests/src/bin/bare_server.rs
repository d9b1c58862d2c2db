//! The floor of what a mail server can cost: reads lines, answers by their first word, keeps nothing.
//!
//!     torwart-bare-server ADDR 450     every RCPT hears 450: the floor for greylisted sessions
//!     torwart-bare-server ADDR 250     takes every message: the sink behind the servers that are measured
//!
//! Two threads, each with a listener of its own on the same port.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const THREADS: usize = 2;
const BACKLOG: i32 = 4096;
const BUFFER: usize = 64 * 1024;
const END: &[u8] = b"\r\n.\r\n";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, rcpt] = arguments.as_slice() else { bail!("usage: torwart-bare-server ADDR 250|450") };
    let address: SocketAddr = address.parse().context("ADDR")?;
    let rcpt: &'static [u8] = match rcpt.as_str() {
        "250" => b"250 2.1.5 ok\r\n",
        "450" => b"450 4.2.0 greylisted, come back in 300 seconds\r\n",
        _ => bail!("usage: torwart-bare-server ADDR 250|450"),
    };
    let threads: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(move || serve(address, rcpt))).collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn serve(address: SocketAddr, rcpt: &'static [u8]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = listen(address)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                // A client that breaks off is no news.
                let _ = session(stream, rcpt).await;
            });
        }
    })
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?)
}

async fn session(mut stream: TcpStream, rcpt: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 bare.example ESMTP\r\n").await?;
    let mut pending = Vec::new();
    let mut out = Vec::new();
    loop {
        let mut data = false;
        let mut used = 0;
        while let Some(length) = pending[used..].iter().position(|byte| *byte == b'\n') {
            let line = &pending[used..used + length];
            used += length + 1;
            match line.first().map(u8::to_ascii_uppercase) {
                Some(b'Q') => {
                    out.extend_from_slice(b"221 2.0.0 bye\r\n");
                    stream.write_all(&out).await?;
                    return Ok(());
                }
                Some(b'E') => out.extend_from_slice(
                    b"250-bare.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600\r\n",
                ),
                Some(b'R') if line.len() > 4 && line[1].eq_ignore_ascii_case(&b'C') => {
                    out.extend_from_slice(rcpt)
                }
                Some(b'D') => {
                    out.extend_from_slice(b"354 go on\r\n");
                    data = true;
                    break;
                }
                _ => out.extend_from_slice(b"250 2.0.0 ok\r\n"),
            }
        }
        pending.drain(..used);
        stream.write_all(&out).await?;
        out.clear();
        if data {
            swallow(&mut stream, &mut pending).await?;
            out.extend_from_slice(b"250 2.0.0 kept\r\n");
            stream.write_all(&out).await?;
            out.clear();
        }
        if read(&mut stream, &mut pending).await? == 0 {
            return Ok(());
        }
    }
}

/// Reads to the end of a message. The client waits for its reply there, so the end is always at the end of what came.
async fn swallow(stream: &mut TcpStream, pending: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        if pending.ends_with(END) || pending == b".\r\n" {
            pending.clear();
            return Ok(());
        }
        let keep = pending.len().min(END.len() - 1);
        pending.drain(..pending.len() - keep);
        if read(stream, pending).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Waits with an empty buffer if it can, so that an idle connection costs nothing here.
async fn read(stream: &mut TcpStream, pending: &mut Vec<u8>) -> std::io::Result<usize> {
    if pending.is_empty() {
        pending.shrink_to(0);
        stream.readable().await?;
    }
    pending.reserve(BUFFER);
    stream.read_buf(pending).await
}
