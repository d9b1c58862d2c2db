//! The senders' side: who brings which message when, what was heard, and whether the books agree in the end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use torwart_tests::{Client, PATIENCE, Received, Reply, without_added_fields};

use crate::ledger::{content, number_of};

/// Messages that are under way or deferred at one time; more are not begun.
const OUTSTANDING: usize = 400;
/// When a sender brings a deferred message again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a sender waits for a reply before it turns to the other edge. Longer than an edge waits for a verdict.
const SENDERS_PATIENCE: Duration = Duration::from_secs(10);
/// In which everything deferred must be delivered when nothing is broken any more.
const END: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(crate) struct Book {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: u32,
    /// Set when no new message is begun any more: what is left must be delivered by then.
    end: Option<Instant>,
    /// Messages that were deferred, with the time of their next attempt.
    deferred: VecDeque<(Instant, u32)>,
    outstanding: usize,
    attempts: u64,
    accounts: HashMap<u32, Account>,
    /// Code and enhanced code, and how often.
    replies: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Default)]
struct Account {
    heard_250: u32,
    /// The connection was lost between the dot and its reply: each may have become a message.
    unknown: u32,
}

enum Heard {
    Reply(Reply),
    Lost { dot_sent: bool },
}

/// Closes the book when it is dropped.
pub(crate) struct Closing<'a>(&'a Book);

/// One sender: takes the next message that is due, brings it to an edge, and to the other one when that fails.
pub(crate) fn send(book: &Book, edges: &[SocketAddr], first: usize) {
    let mut at = first;
    while let Some(number) = book.take() {
        let heard = attempt(edges[at % edges.len()], number);
        if matches!(heard, Heard::Lost { .. }) {
            at += 1;
        }
        book.settle(number, &heard);
    }
}

fn attempt(edge: SocketAddr, number: u32) -> Heard {
    let mut dot_sent = false;
    match converse(edge, number, &mut dot_sent) {
        Ok(reply) => Heard::Reply(reply),
        Err(_) => Heard::Lost { dot_sent },
    }
}

/// A whole session; the reply is the last one, or the first that is not positive.
fn converse(edge: SocketAddr, number: u32, dot_sent: &mut bool) -> io::Result<Reply> {
    let mut client = Client::try_connect(edge, None)?;
    client.stream().set_read_timeout(Some(SENDERS_PATIENCE))?;
    let banner = client.try_reply()?;
    if !banner.is_positive() {
        return Ok(banner);
    }
    let mail = format!("MAIL FROM:<n{number}@sender.example>");
    for line in ["EHLO client.sender.example", &mail, "RCPT TO:<bert@example.org>", "DATA"] {
        client.try_send(format!("{line}\r\n").as_bytes())?;
        let reply = client.try_reply()?;
        if !reply.is_positive() {
            return Ok(reply);
        }
    }
    *dot_sent = true;
    client.try_content(&content(number))
}

// === impl Book ===

impl Book {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next message to bring; waits until there is one. `None`: all is delivered, or it is too late.
    fn take(&self) -> Option<u32> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if let Some((_, number)) = state.deferred.pop_front_if(|(due, _)| *due <= now) {
                return Some(number);
            }
            match state.end {
                None if state.outstanding < OUTSTANDING => {
                    state.outstanding += 1;
                    state.next += 1;
                    return Some(state.next);
                }
                Some(end) if state.outstanding == 0 || end <= now => return None,
                _ => {}
            }
            let due = state.deferred.front().map_or(RETRY, |(due, _)| due.saturating_duration_since(now));
            state = self.changed.wait_timeout(state, due).unwrap().0;
        }
    }

    fn settle(&self, number: u32, heard: &Heard) {
        let mut state = self.state();
        state.attempts += 1;
        let account = state.accounts.entry(number).or_default();
        let delivered = match heard {
            Heard::Reply(reply) if reply.code == 250 => {
                account.heard_250 += 1;
                true
            }
            Heard::Reply(_) => false,
            Heard::Lost { dot_sent } => {
                account.unknown += u32::from(*dot_sent);
                false
            }
        };
        let words = match heard {
            Heard::Reply(reply) => format!("{} {}", reply.code, reply.enhanced()),
            Heard::Lost { .. } => "lost".to_owned(),
        };
        *state.replies.entry(words).or_default() += 1;
        if delivered {
            state.outstanding -= 1;
        } else {
            state.deferred.push_back((Instant::now() + RETRY, number));
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for so many attempts from now on.
    #[track_caller]
    pub(crate) fn wait_attempts(&self, what: &str, count: u64) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state();
        let wanted = state.attempts + count;
        while state.attempts < wanted {
            let left = end.checked_duration_since(Instant::now());
            let Some(left) = left else { panic!("{what}: the senders are stuck: {:?}", state.replies) };
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// How often this reply was heard, by code and enhanced code.
    pub(crate) fn heard(&self, reply: &str) -> u64 {
        self.state().replies.get(reply).copied().unwrap_or(0)
    }

    pub(crate) fn replies(&self) -> BTreeMap<String, u64> {
        self.state().replies.clone()
    }

    /// When what is returned is dropped, no new message is begun any more.
    pub(crate) fn closing(&self) -> Closing<'_> {
        Closing(self)
    }

    /// No 5xx; all delivered; each 250 is one message, and none was invented.
    pub(crate) fn balance(&self, received: &[Received]) {
        let state = self.state();
        let refusals: Vec<_> = state.replies.keys().filter(|reply| reply.starts_with('5')).collect();
        assert!(refusals.is_empty(), "a refusal for a fault of ours: {:?}", state.replies);
        assert_eq!(state.outstanding, 0, "deferred for ever; the replies were {:?}", state.replies);
        let mut copies: HashMap<u32, u32> = HashMap::new();
        for message in received {
            let number = number_of(message);
            assert!(
                without_added_fields(&message.content) == content(number),
                "message {number} was changed"
            );
            *copies.entry(number).or_default() += 1;
        }
        for (number, account) in &state.accounts {
            let copies = copies.remove(number).unwrap_or(0);
            let Account { heard_250, unknown } = *account;
            assert!(
                (heard_250..=heard_250 + unknown).contains(&copies),
                "message {number}: {copies} upstream, {heard_250} acknowledged, {unknown} unknown"
            );
        }
        assert!(copies.is_empty(), "messages that nobody sent: {copies:?}");
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.state().end = Some(Instant::now() + END);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(number: u32, content: Vec<u8>) -> Received {
        Received {
            helo: String::new(),
            from: format!("n{number}@sender.example"),
            to: Vec::new(),
            mail: String::new(),
            content,
            acknowledged: true,
        }
    }

    /// Message 1 heard these replies; this is what came of it.
    fn balance(replies: &[&str], copies: usize) {
        let book = Book::default();
        assert_eq!(book.take(), Some(1));
        drop(book.closing());
        for reply in replies {
            let heard = match *reply {
                "lost" => Heard::Lost { dot_sent: true },
                code => Heard::Reply(Reply { code: code.parse().unwrap(), lines: Vec::new() }),
            };
            book.settle(1, &heard);
        }
        book.balance(&vec![received(1, content(1)); copies]);
    }

    #[test]
    fn books_that_agree_are_in_balance() {
        balance(&["450", "451", "250"], 1);
        balance(&["lost", "250"], 1);
        balance(&["lost", "250"], 2);
    }

    #[test]
    #[should_panic(expected = "0 upstream, 1 acknowledged")]
    fn a_message_that_is_lost_is_found() {
        balance(&["250"], 0);
    }

    #[test]
    #[should_panic(expected = "2 upstream, 1 acknowledged")]
    fn a_message_that_is_doubled_is_found() {
        balance(&["451", "250"], 2);
    }

    #[test]
    #[should_panic(expected = "a refusal for a fault of ours")]
    fn a_refusal_is_found() {
        balance(&["550", "250"], 1);
    }

    #[test]
    #[should_panic(expected = "deferred for ever")]
    fn a_message_that_never_came_through_is_found() {
        balance(&["451"], 0);
    }

    #[test]
    #[should_panic(expected = "was changed")]
    fn a_message_that_was_changed_is_found() {
        let book = Book::default();
        book.balance(&[received(1, content(2))]);
    }
}
