//! The demo's senders: a client that says one line at a time and shows what it hears.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::narrator::Narrator;

/// One connection to the gateway.
#[derive(Debug)]
pub(super) struct Sender {
    stream: BufReader<TcpStream>,
}

/// The reply to one command; of several lines, the last.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) code: u16,
    pub(super) text: String,
}

/// On loopback every answer comes within milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
const LONGEST_LINE: u64 = 4096;
const MOST_LINES: usize = 100;

// === impl Sender ===

impl Sender {
    /// Connects and says EHLO.
    pub(super) async fn connect(gateway: SocketAddr, helo: &str, story: &mut Narrator) -> io::Result<Self> {
        let stream = timeout(LIMIT, TcpStream::connect(gateway)).await??;
        let mut sender = Self { stream: BufReader::new(stream) };
        let banner = sender.hear().await?;
        story.server(&banner.text);
        sender.say(&format!("EHLO {helo}"), story).await?;
        Ok(sender)
    }

    /// Sends one command and shows both sides.
    pub(super) async fn say(&mut self, line: &str, story: &mut Narrator) -> io::Result<Heard> {
        story.client(line);
        self.write(format!("{line}\r\n").as_bytes()).await?;
        let heard = self.hear().await?;
        story.server(&heard.text);
        Ok(heard)
    }

    /// Sends bytes as they are, shown with their line ends, and waits for one reply.
    pub(super) async fn send_raw(&mut self, bytes: &[u8], story: &mut Narrator) -> io::Result<Heard> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let shown = String::from_utf8_lossy(line);
            let bare = line.ends_with(b"\n") && !line.ends_with(b"\r\n");
            let mark = if bare { " <- a bare line feed" } else { "" };
            story.client(&format!("{}{mark}", shown.trim_end_matches(['\r', '\n'])));
        }
        self.write(bytes).await?;
        let heard = self.hear().await?;
        story.server(&heard.text);
        Ok(heard)
    }

    /// QUIT; whether the gateway says goodbye makes no difference any more.
    pub(super) async fn quit(mut self) {
        if self.write(b"QUIT\r\n").await.is_ok() {
            let _ = self.hear().await;
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(LIMIT, self.stream.write_all(bytes)).await?
    }

    async fn hear(&mut self) -> io::Result<Heard> {
        for _ in 0..MOST_LINES {
            let mut line = Vec::new();
            let mut limited = (&mut self.stream).take(LONGEST_LINE);
            timeout(LIMIT, limited.read_until(b'\n', &mut line)).await??;
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if text.as_bytes().get(3) != Some(&b'-') {
                let code = text.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
                return Ok(Heard { code, text });
            }
        }
        Err(io::Error::other("the reply has too many lines"))
    }
}
