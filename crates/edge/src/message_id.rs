//! Finds the value of Message-ID while a message streams by; for the log only.

/// Watches the header section of one message.
#[derive(Debug, Default)]
pub(crate) struct MessageIdScanner {
    /// The header field read so far, its folded lines joined.
    field: Vec<u8>,
    at_line_start: bool,
    begun: bool,
    done: bool,
    found: Option<Box<str>>,
}

const NAME: &[u8] = b"message-id:";
/// RFC 5322 section 2.1.1 allows lines of 998; no message id in use is longer than this.
const LONGEST: usize = 512;

// === impl MessageIdScanner ===

impl MessageIdScanner {
    /// Takes the next decoded bytes of the message.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        if !self.begun {
            self.begun = true;
            self.at_line_start = true;
        }
        for &byte in bytes {
            if self.done {
                return;
            }
            self.receive_byte(byte);
        }
    }

    pub(crate) fn into_found(self) -> Option<Box<str>> {
        self.found
    }

    fn receive_byte(&mut self, byte: u8) {
        if self.at_line_start && byte != b' ' && byte != b'\t' {
            self.end_field();
            // an empty line ends the header section
            self.done |= matches!(byte, b'\r' | b'\n');
        }
        self.at_line_start = byte == b'\n';
        // a field that is not Message-ID is not kept beyond its name
        let wanted = self.field.len() < NAME.len() || starts_with_name(&self.field);
        if wanted && self.field.len() < LONGEST && !matches!(byte, b'\r' | b'\n') {
            self.field.push(byte);
        }
    }

    fn end_field(&mut self) {
        if starts_with_name(&self.field) {
            let value = self.field.get(NAME.len()..).unwrap_or_default().trim_ascii();
            self.found = Some(String::from_utf8_lossy(value).into());
            self.done = true;
        }
        self.field.clear();
    }
}

fn starts_with_name(field: &[u8]) -> bool {
    field.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(message: &str, piece: usize) -> Option<Box<str>> {
        let mut scanner = MessageIdScanner::default();
        for bytes in message.as_bytes().chunks(piece) {
            scanner.receive(bytes);
        }
        scanner.into_found()
    }

    #[test]
    fn the_value_is_found_wherever_the_pieces_end() {
        let table = [
            ("From: a\r\nMessage-ID: <1@a>\r\n\r\nbody", Some("<1@a>")),
            ("message-id:\r\n <2@a>\r\nTo: b\r\n\r\n", Some("<2@a>")),
            ("Subject: x\r\n message-id: <no@a>\r\n\r\nMessage-ID: <body@a>\r\n", None),
            ("\r\nMessage-ID: <body@a>\r\n", None),
            ("X-Message-ID: <no@a>\r\n\r\n", None),
            ("Message-ID: <first@a>\r\nMessage-ID: <second@a>\r\n\r\n", Some("<first@a>")),
            ("", None),
        ];
        for (message, expected) in table {
            for piece in 1..=message.len().max(1) {
                assert_eq!(find(message, piece).as_deref(), expected, "{message:?} by {piece}");
            }
        }
    }

    #[test]
    fn an_endless_field_is_cut() {
        let message = format!("Message-ID: {}\r\n\r\n", "x".repeat(100_000));
        assert!(find(&message, 4096).unwrap().len() < LONGEST);
    }
}
