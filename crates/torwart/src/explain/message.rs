//! The message as SMTP would carry it: files often have bare line feeds.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use torwart_verdict::explain::Message;

/// Read at a time.
const BLOCK: usize = 64 * 1024;

/// Reads all of it to know its size, and keeps the first `keep` bytes.
pub(super) fn read(path: &Path, keep: usize) -> Result<Message, String> {
    let said = |error: io::Error| format!("--message: {}: {error}", path.display());
    let file = File::open(path).map_err(said)?;
    if !file.metadata().map_err(said)?.is_file() {
        return Err(format!("--message: {} is no regular file", path.display()));
    }
    decode(BufReader::new(file), keep).map_err(said)
}

fn decode(mut file: impl Read, keep: usize) -> io::Result<Message> {
    let mut message = Message::default();
    let mut block = vec![0; BLOCK];
    let mut last = 0;
    loop {
        let read = match file.read(&mut block) {
            Ok(0) => return Ok(message),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for &byte in block.iter().take(read) {
            if byte == b'\n' && last != b'\r' {
                take(&mut message, b'\r', keep);
            }
            take(&mut message, byte, keep);
            last = byte;
        }
    }
}

fn take(message: &mut Message, byte: u8, keep: usize) {
    message.size += 1;
    if message.beginning.len() < keep {
        message.beginning.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_feeds_become_line_ends_and_what_is_not_kept_is_counted() {
        for text in ["a\nb\r\nc\n", "a\r\nb\r\nc\r\n"] {
            let message = decode(text.as_bytes(), 4).unwrap();
            assert_eq!((message.beginning.as_slice(), message.size), (&b"a\r\nb"[..], 9));
        }
        assert_eq!(decode(&b""[..], 4).unwrap().size, 0);
    }
}
