//! Standard output that never holds anyone up: lines go through a bounded queue to a thread of their own.
//! A reader that stalls costs lines, which are counted and reported, and no mail.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Lines that may wait. At some 500 bytes a line that is 4 MiB at most in a bad minute.
const QUEUE: usize = 8192;
/// Lines are gathered into writes of about this size.
const BATCH: usize = 64 * 1024;
/// How long the end of the process waits for the last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// How often a flush looks for room in a full queue.
const ROOM_POLL: Duration = Duration::from_millis(5);

/// A handle on the queue; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Item {
    Line(String),
    /// Answered when everything before it has been written.
    Flush(SyncSender<()>),
}

// === impl Output ===

impl Output {
    pub(crate) fn stdout() -> io::Result<Self> {
        Self::start(io::stdout())
    }

    /// Starts the thread that writes to `target`.
    pub(crate) fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write_lines(&items, target, &counter))?;
        Ok(Self { queue, lost })
    }

    /// Queues one line (without its line end), or counts it as lost if the queue is full.
    pub(crate) fn line(&self, line: String) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the lines so far are written, but not for long.
    pub(crate) fn flush(&self) {
        let end = Instant::now() + FLUSH_LIMIT;
        let (done, answer) = sync_channel(1);
        while self.queue.try_send(Item::Flush(done.clone())).is_err() {
            if Instant::now() > end {
                return;
            }
            sleep(ROOM_POLL);
        }
        // An error is a writer that is stuck or gone: then the lines are lost.
        let _ = answer.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn write_lines(items: &Receiver<Item>, mut target: impl Write, lost: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = items.recv() {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(item) = next.take() {
            match item {
                Item::Line(line) => {
                    batch.extend_from_slice(line.as_bytes());
                    batch.push(b'\n');
                }
                Item::Flush(done) => waiting.push(done),
            }
            if batch.len() < BATCH {
                next = items.try_recv().ok();
            }
        }
        let lines_lost = lost.swap(0, Ordering::Relaxed);
        if lines_lost > 0 {
            let notice = format!(
                "{{\"event\":\"log\",\"level\":\"warn\",\"message\":\"log lines were lost because \
                                  standard output is not read fast enough\",\"lines\":{lines_lost}}}\n"
            );
            batch.extend_from_slice(notice.as_bytes());
        }
        // A closed standard output must not end the gateway: its lines are lost, its mail goes on.
        let _ = target.write_all(&batch).and_then(|()| target.flush());
        batch.clear();
        for done in waiting {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing until `open` is signalled.
    struct Stuck(Receiver<()>, Shared);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order() {
        let target = Shared::default();
        let output = Output::start(target.clone()).unwrap();
        output.line("one".to_owned());
        output.line("two".to_owned());
        output.flush();
        assert_eq!(target.0.lock().unwrap().as_slice(), b"one\ntwo\n");
    }

    #[test]
    fn a_stuck_reader_loses_lines_and_hears_how_many() {
        let (open, gate) = sync_channel::<()>(0);
        let target = Shared::default();
        let output = Output::start(Stuck(gate, target.clone())).unwrap();
        // One batch is stuck in the writer, the queue fills up, the rest is lost; none of these calls waits.
        for number in 0..4 * QUEUE {
            output.line(format!("{number:0>100}"));
        }
        drop(open);
        output.line("after".to_owned());
        output.flush();
        let text = String::from_utf8(target.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("log lines were lost"), "nothing was reported as lost");
        assert!(text.lines().count() < 4 * QUEUE);
    }
}
