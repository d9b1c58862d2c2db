//! The lines that a child process writes, as they come.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A growing list of lines; clones share it.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    /// Sources that have not ended yet.
    open: usize,
}

impl Lines {
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows `source` to its end, in a thread of its own.
    pub fn follow(&self, source: impl Read + Send + 'static) {
        Self::follow_into(vec![self.clone()], source);
    }

    /// As [`Lines::follow`], into several lists at once.
    pub(crate) fn follow_into(lists: Vec<Self>, source: impl Read + Send + 'static) {
        let change = |lists: &[Self], what: &dyn Fn(&mut State)| {
            for list in lists {
                what(&mut list.shared.state.lock().unwrap());
                list.shared.grown.notify_all();
            }
        };
        change(&lists, &|state| state.open += 1);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                change(&lists, &|state| state.lines.push(text.clone()));
            }
            change(&lists, &|state| state.open -= 1);
        });
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().lines.clone()
    }

    pub fn len(&self) -> usize {
        self.shared.state.lock().unwrap().lines.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first result of `pick` over all lines, past and future.
    ///
    /// Panics, with everything that was written, when the sources end or [`PATIENCE`] is over.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.wait_within(PATIENCE, what, pick)
    }

    #[track_caller]
    pub fn wait_within<T>(&self, patience: Duration, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        match self.try_wait(patience, pick) {
            Some(found) => found,
            None => panic!("no line with {what} in {patience:?}; there were:\n{}", self.all().join("\n")),
        }
    }

    /// As [`Lines::wait`], but `None` instead of a panic.
    pub fn try_wait<T>(&self, patience: Duration, mut pick: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let end = Instant::now() + patience;
        let mut seen = 0;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            while let Some(line) = state.lines.get(seen) {
                seen += 1;
                if let Some(found) = pick(line) {
                    return Some(found);
                }
            }
            let left = end.checked_duration_since(Instant::now())?;
            if state.open == 0 {
                return None;
            }
            state = self.shared.grown.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits for `count` lines for which `pick` has a result.
    #[track_caller]
    pub fn wait_count<T>(&self, count: usize, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        if count == 0 {
            return found;
        }
        let full = self.try_wait(PATIENCE, |line| {
            found.extend(pick(line));
            (found.len() == count).then_some(())
        });
        assert!(
            full.is_some(),
            "{} of {count} lines with {what}; all:\n{}",
            found.len(),
            self.all().join("\n")
        );
        found
    }

    /// Waits until every source has ended.
    pub fn wait_closed(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.shared.state.lock().unwrap();
        while state.open > 0 {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            state = self.shared.grown.wait_timeout(state, left).unwrap().0;
        }
        true
    }
}
