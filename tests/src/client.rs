//! An SMTP client that says exactly what it is told to, octet by octet.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::PATIENCE;

pub struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
}

/// One reply, all its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// Without code, separator and line end.
    pub lines: Vec<String>,
}

impl Reply {
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// The enhanced status code that the first line starts with, as in `4.2.0`.
    pub fn enhanced(&self) -> &str {
        let first = self.lines.first().map(String::as_str).unwrap_or_default();
        let word = first.split(' ').next().unwrap_or_default();
        if word.split('.').count() == 3 { word } else { "" }
    }

    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    pub fn is_temporary(&self) -> bool {
        (400..500).contains(&self.code)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text())
    }
}

impl Client {
    /// Connects; the banner is still to be read.
    #[track_caller]
    pub fn connect(to: SocketAddr) -> Self {
        Self::try_connect(to, None).unwrap_or_else(|error| panic!("no connection to {to}: {error}"))
    }

    /// Connects from a loopback address of choice.
    #[track_caller]
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Self {
        Self::try_connect(to, Some(from))
            .unwrap_or_else(|error| panic!("no connection {from} to {to}: {error}"))
    }

    pub fn try_connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, pending: Vec::new() })
    }

    /// Connects, reads the banner and says EHLO.
    #[track_caller]
    pub fn greeted(to: SocketAddr) -> Self {
        let mut client = Self::connect(to);
        client.expect(220);
        client.ask(250, "EHLO client.sender.example");
        client
    }

    /// As [`Client::greeted`], from a loopback address of choice.
    #[track_caller]
    pub fn greeted_from(from: IpAddr, to: SocketAddr) -> Self {
        let mut client = Self::connect_from(from, to);
        client.expect(220);
        client.ask(250, "EHLO client.sender.example");
        client
    }

    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).unwrap_or_else(|error| panic!("the peer takes nothing more: {error}"));
    }

    /// The next reply. An error is the end of the connection, silence for too long, or something that is no reply.
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        loop {
            let line = self.read_line()?;
            let text = String::from_utf8_lossy(&line);
            let code = text.get(..3).and_then(|digits| digits.parse().ok());
            let Some(code) = code else { return Err(invalid(format!("no reply: {text:?}"))) };
            if reply.code != 0 && reply.code != code {
                return Err(invalid(format!("two codes in one reply: {text:?}")));
            }
            reply.code = code;
            reply.lines.push(text.get(4..).unwrap_or_default().to_owned());
            match text.as_bytes().get(3) {
                Some(b'-') => {}
                Some(b' ') | None => return Ok(reply),
                Some(_) => return Err(invalid(format!("no reply: {text:?}"))),
            }
        }
    }

    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    #[track_caller]
    pub fn expect(&mut self, code: u16) -> Reply {
        let reply = self.reply();
        assert_eq!(reply.code, code, "instead: {reply}");
        reply
    }

    /// Sends one command and reads its reply, whatever it is.
    #[track_caller]
    pub fn command(&mut self, line: impl AsRef<[u8]>) -> Reply {
        let mut bytes = line.as_ref().to_vec();
        bytes.extend_from_slice(b"\r\n");
        self.send(bytes);
        self.reply()
    }

    /// Sends one command and expects the code.
    #[track_caller]
    pub fn ask(&mut self, code: u16, line: impl AsRef<[u8]>) -> Reply {
        let line = line.as_ref();
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{} heard: {reply}", String::from_utf8_lossy(line));
        reply
    }

    /// A whole transaction; `content` is stuffed and ended here. The last reply is returned: the final dot's,
    /// or the first that is not positive.
    pub fn try_mail(&mut self, from: &str, to: &[&str], content: &[u8]) -> io::Result<Reply> {
        let mut steps = vec![format!("MAIL FROM:<{from}>")];
        steps.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
        steps.push("DATA".to_owned());
        for step in steps {
            self.try_send(format!("{step}\r\n").as_bytes())?;
            let reply = self.try_reply()?;
            if !reply.is_positive() {
                return Ok(reply);
            }
        }
        self.try_content(content)
    }

    /// After DATA: sends the message, stuffed and ended here, and reads the last reply.
    pub fn try_content(&mut self, content: &[u8]) -> io::Result<Reply> {
        self.try_send(&framed(content))?;
        self.try_reply()
    }

    #[track_caller]
    pub fn mail(&mut self, from: &str, to: &[&str], content: &[u8]) -> Reply {
        self.try_mail(from, to, content).unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    /// The peer must close now, without another reply.
    #[track_caller]
    pub fn expect_close(&mut self) {
        match self.read_line() {
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("the connection did not close: {error}"),
            Ok(line) => panic!("the connection did not close but said {:?}", String::from_utf8_lossy(&line)),
        }
    }

    /// Reads replies until the connection closes.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            match self.try_reply() {
                Ok(reply) => replies.push(reply),
                Err(error)
                    if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
                {
                    return replies;
                }
                Err(error) => panic!("the connection did not close: {error}; it said {replies:?}"),
            }
        }
    }

    /// Says that nothing more will be sent; reading goes on.
    pub fn close_write(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.pending.iter().skip(searched).position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.pending.drain(..=searched + end).collect();
                if !line.ends_with(b"\r\n") {
                    return Err(invalid(format!("a bare line feed: {:?}", String::from_utf8_lossy(&line))));
                }
                line.truncate(line.len() - 2);
                return Ok(line);
            }
            searched = self.pending.len();
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.pending.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Dot-stuffed, with the end of the message (RFC 5321 section 4.5.2). `content` is whole lines.
fn framed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}
