//! `torwart probe`: the first steps of a session, and what the gateway says to them.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::complain;

/// For all of it. RFC 5321 section 4.5.3.2 gives the banner alone five minutes; who probes wants to know now.
const LIMIT: Duration = Duration::from_secs(20);
const LONGEST_LINE: u64 = 4096;
const MOST_LINES: usize = 100;

/// Exit status 1 if one of the addresses does not take a session.
pub(crate) async fn probe(addresses: Vec<String>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for address in addresses {
        let limited = timeout(LIMIT, session(&address)).await;
        if let Err(error) = limited.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            complain(&format!("torwart: {address}: {error}"));
            code = ExitCode::FAILURE;
        }
    }
    code
}

async fn session(address: &str) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    expect(&mut stream, "220").await?;
    say(&mut stream, "EHLO probe.invalid").await?;
    expect(&mut stream, "250").await?;
    say(&mut stream, "QUIT").await?;
    expect(&mut stream, "221").await
}

async fn say(stream: &mut BufReader<TcpStream>, line: &str) -> io::Result<()> {
    show("C", line);
    stream.write_all(format!("{line}\r\n").as_bytes()).await
}

/// One reply, whose code must be this.
async fn expect(stream: &mut BufReader<TcpStream>, code: &str) -> io::Result<()> {
    for _ in 0..MOST_LINES {
        let mut line = Vec::new();
        (&mut *stream).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        show("S", &text);
        if text.get(..3) != Some(code) {
            return Err(io::Error::other(format!("expected {code}, and heard {text:?}")));
        }
        if text.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
    Err(io::Error::other("the reply has too many lines"))
}

/// Nobody reading is no failure.
fn show(who: &str, line: &str) {
    let _ = writeln!(io::stdout(), "{who}: {line}");
}
