//! One connection to the scripted mail server: SMTP as it should be, and the fault.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::{Act, Received, Shared, Step};
use crate::PATIENCE;

/// Why a connection's thread stops; there is nobody to tell.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut state = shared.state.lock().unwrap();
        if !state.listening {
            return;
        }
        state.accepted += 1;
        state.connections.extend(stream.try_clone());
        drop(state);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let mut connection = Connection { stream, pending: Vec::new(), shared: &shared };
            let _ = connection.serve();
        });
    }
}

struct Connection<'a> {
    stream: TcpStream,
    pending: Vec<u8>,
    shared: &'a Shared,
}

impl Connection<'_> {
    fn serve(&mut self) -> Result<(), Gone> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        self.step(Step::Banner, b"220 upstream.example ESMTP\r\n")?;
        let (mut helo, mut mail, mut to) = (String::new(), None, Vec::new());
        loop {
            let line = String::from_utf8_lossy(&self.line()?).into_owned();
            let upper = line.to_ascii_uppercase();
            let verb = upper.split([' ', ':']).next().unwrap_or_default();
            match verb {
                "EHLO" => {
                    line.get(5..).unwrap_or_default().clone_into(&mut helo);
                    let reply = self.ehlo_reply();
                    self.step(Step::Ehlo, &reply)?;
                }
                "HELO" => {
                    line.get(5..).unwrap_or_default().clone_into(&mut helo);
                    self.step(Step::Ehlo, b"250 upstream.example\r\n")?;
                }
                "MAIL" => {
                    if self.step(Step::Mail, b"250 2.1.0 sender ok\r\n")? {
                        mail = Some(line);
                    }
                    to.clear();
                }
                "RCPT" => {
                    let path = path(&line);
                    if self.is_unknown(&path) {
                        self.say(b"550 5.1.1 nobody here\r\n")?;
                    } else if self.step(Step::Rcpt, b"250 2.1.5 recipient ok\r\n")? {
                        to.push(path);
                    }
                }
                "DATA" if mail.is_none() || to.is_empty() => self.say(b"503 5.5.1 not now\r\n")?,
                "DATA" => {
                    if !self.step(Step::Data, b"354 go on\r\n")? {
                        continue;
                    }
                    let content = self.content()?;
                    let mail = mail.take().unwrap_or_default();
                    let received = Received {
                        helo: helo.clone(),
                        from: path(&mail),
                        to: std::mem::take(&mut to),
                        mail,
                        content,
                        acknowledged: true,
                    };
                    self.finish(received)?;
                }
                "RSET" => {
                    (mail, to) = (None, Vec::new());
                    self.say(b"250 2.0.0 ok\r\n")?;
                }
                "STARTTLS" => drop(self.step(Step::StartTls, b"454 4.7.0 no TLS here\r\n")?),
                "NOOP" => self.say(b"250 2.0.0 ok\r\n")?,
                "QUIT" => {
                    self.say(b"221 2.0.0 bye\r\n")?;
                    return Err(Gone);
                }
                _ => self.say(b"500 5.5.2 what\r\n")?,
            }
        }
    }

    fn ehlo_reply(&self) -> Vec<u8> {
        let state = self.shared.state.lock().unwrap();
        let mut lines = vec!["upstream.example".to_owned()];
        lines.extend(state.capabilities.iter().cloned());
        let last = lines.len() - 1;
        let separator = |i| if i == last { ' ' } else { '-' };
        lines
            .iter()
            .enumerate()
            .map(|(i, line)| format!("250{}{line}\r\n", separator(i)))
            .collect::<String>()
            .into()
    }

    fn is_unknown(&self, path: &str) -> bool {
        self.shared.state.lock().unwrap().unknown_recipients.iter().any(|unknown| unknown == path)
    }

    /// The message up to its end, which is CRLF.CRLF and nothing else.
    fn content(&mut self) -> Result<Vec<u8>, Gone> {
        let mut content = Vec::new();
        let mut first = true;
        loop {
            let line = self.raw_line()?;
            if std::mem::take(&mut first) {
                self.step(Step::Body, b"")?;
            }
            // A line feed alone ends no line, so the next "line" is the same one's rest.
            let at_line_start = content.is_empty() || content.ends_with(b"\r\n");
            match line.strip_prefix(b".") {
                Some(b"\r\n") if at_line_start => return Ok(content),
                Some(rest) if at_line_start => content.extend_from_slice(rest),
                _ => content.extend_from_slice(&line),
            }
        }
    }

    fn finish(&mut self, mut received: Received) -> Result<(), Gone> {
        let act = self.strike(Step::Dot);
        match act {
            None | Some(Act::Trickle) => {
                self.keep(received);
                let reply = b"250 2.0.0 kept\r\n";
                if act.is_some() { self.trickle(reply) } else { self.say(reply) }
            }
            Some(Act::KeepAndClose) => {
                received.acknowledged = false;
                self.keep(received);
                self.close()
            }
            Some(act) => self.act(act, b"").map(drop),
        }
    }

    fn keep(&self, received: Received) {
        self.shared.state.lock().unwrap().received.push(received);
        self.shared.changed.notify_all();
    }

    /// Says `reply`, or what the fault wants. True if it was the reply.
    fn step(&mut self, step: Step, reply: &[u8]) -> Result<bool, Gone> {
        match self.strike(step) {
            None => self.say(reply).map(|()| true),
            Some(act) => self.act(act, reply),
        }
    }

    fn strike(&self, step: Step) -> Option<Act> {
        let mut state = self.shared.state.lock().unwrap();
        let fault = state.fault.clone().filter(|fault| fault.step == step)?;
        state.reached += 1;
        state.reached.is_multiple_of(fault.every).then(|| {
            state.struck += 1;
            fault.act
        })
    }

    fn act(&mut self, act: Act, reply: &[u8]) -> Result<bool, Gone> {
        match act {
            Act::Say(text) => self.say(&text).map(|()| false),
            Act::SayAndClose(text) => {
                self.say(&text)?;
                self.close().map(|()| false)
            }
            Act::Close | Act::KeepAndClose => self.close().map(|()| false),
            Act::Trickle => self.trickle(reply).map(|()| true),
            Act::Hang => {
                self.wait_for_end();
                Err(Gone)
            }
            Act::Flood(text) => loop {
                self.say(&text)?;
            },
        }
    }

    fn say(&mut self, text: &[u8]) -> Result<(), Gone> {
        Ok(self.stream.write_all(text)?)
    }

    fn trickle(&mut self, text: &[u8]) -> Result<(), Gone> {
        for octet in text.chunks(1) {
            self.say(octet)?;
            // Slowness is what is played here.
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends with FIN, not RST: what was said must arrive.
    fn close(&mut self) -> Result<(), Gone> {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.wait_for_end();
        Err(Gone)
    }

    fn wait_for_end(&mut self) {
        let mut sink = [0; 4096];
        while matches!(self.stream.read(&mut sink), Ok(n) if n > 0) {}
    }

    fn line(&mut self) -> Result<Vec<u8>, Gone> {
        let mut line = self.raw_line()?;
        while matches!(line.last(), Some(b'\r' | b'\n')) {
            line.pop();
        }
        Ok(line)
    }

    fn raw_line(&mut self) -> Result<Vec<u8>, Gone> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(self.pending.drain(..=searched + end).collect());
            }
            searched = self.pending.len();
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Gone),
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // The list holds a second handle on the socket, so dropping this one would not close it.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>')).map(|(inner, _)| inner);
    inner.unwrap_or_default().to_owned()
}
