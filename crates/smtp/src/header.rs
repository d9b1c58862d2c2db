//! Watches a message go by for the two things its header can do wrong: be endless, and show a loop.

mod edit;

use memchr::memchr;

pub use self::edit::{HeaderEditor, Removals};

/// Counts the octets and the Received fields of a message's header section (RFC 5322 section 2.1). It changes
/// nothing and stores nothing. The header ends before its empty line, or before the first line that is no field.
#[derive(Clone, Debug)]
pub struct HeaderScanner {
    place: Place,
    /// Octets that may still come.
    room: u64,
    /// Received fields that may still come.
    hops: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    TooLarge,
    TooManyReceived,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where the header begins: no continuation line may stand here.
    Start,
    LineStart,
    /// In a field's name, of which so many octets agree with `Received`; `OTHER` if one does not.
    Name(u8),
    /// Between the name and its colon (RFC 5322 section 4.5 has blanks there).
    Blank(u8),
    /// In a field's value.
    Value,
    Body,
}

const RECEIVED: &[u8] = b"received";
const OTHER: u8 = u8::MAX;

// === impl HeaderScanner ===

impl HeaderScanner {
    /// Allows so many octets and so many Received fields.
    pub fn new(size: u64, received: u32) -> Self {
        Self { place: Place::Start, room: size, hops: received }
    }

    /// Takes the next bytes of the message (without stuffing dots). The fault is the first one in the order of the
    /// bytes, however they are cut.
    pub fn scan(&mut self, message: &[u8]) -> Result<(), HeaderFault> {
        if self.place == Place::Body {
            return Ok(());
        }
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let (allowed, over) = message.split_at_checked(room).unwrap_or((message, b""));
        self.scan_allowed(allowed)?;
        self.room -= allowed.len() as u64;
        match over.first() {
            None => Ok(()),
            // the empty line behind the fields is not one of their octets
            Some(byte) if matches!(self.place, Place::Start | Place::LineStart) && ends_header(*byte) => {
                self.place = Place::Body;
                Ok(())
            }
            Some(_) if self.place == Place::Body => Ok(()),
            Some(_) => Err(HeaderFault::TooLarge),
        }
    }

    /// Whether the header is over.
    pub fn is_done(&self) -> bool {
        self.place == Place::Body
    }

    fn scan_allowed(&mut self, mut bytes: &[u8]) -> Result<(), HeaderFault> {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.place = match (self.place, byte) {
                (Place::Body, _) => return Ok(()),
                (Place::Value, _) => match memchr(b'\n', bytes) {
                    Some(lf) => {
                        bytes = bytes.get(lf + 1..).unwrap_or_default();
                        self.place = Place::LineStart;
                        continue;
                    }
                    None => return Ok(()),
                },
                (Place::LineStart, b' ' | b'\t') => Place::Value,
                (Place::Name(matched) | Place::Blank(matched), b':') => {
                    if usize::from(matched) == RECEIVED.len() {
                        self.hops = self.hops.checked_sub(1).ok_or(HeaderFault::TooManyReceived)?;
                    }
                    Place::Value
                }
                (Place::Name(matched) | Place::Blank(matched), b' ' | b'\t') => Place::Blank(matched),
                (Place::Start | Place::LineStart, b'!'..=b'9' | b';'..=b'~') => Place::Name(agree(0, byte)),
                (Place::Name(matched), b'!'..=b'9' | b';'..=b'~') => Place::Name(agree(matched, byte)),
                _ => Place::Body,
            };
            bytes = rest;
        }
        Ok(())
    }
}

/// Neither a field's name nor a continuation begins so.
fn ends_header(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t' | b'!'..=b'9' | b';'..=b'~')
}

fn agree(matched: u8, byte: u8) -> u8 {
    match RECEIVED.get(usize::from(matched)) {
        Some(wanted) if byte.eq_ignore_ascii_case(wanted) => matched + 1,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(message: &str, size: u64, received: u32) -> (Result<(), HeaderFault>, bool) {
        let mut whole = HeaderScanner::new(size, received);
        let result = whole.scan(message.as_bytes());
        let mut pieces = HeaderScanner::new(size, received);
        let by_byte = message.as_bytes().chunks(1).try_for_each(|byte| pieces.scan(byte));
        assert_eq!(by_byte, result, "{message:?} byte by byte");
        for cut in 0..message.len() {
            let (first, second) = message.as_bytes().split_at(cut);
            let mut halves = HeaderScanner::new(size, received);
            let cut_result = halves.scan(first).and_then(|()| halves.scan(second));
            assert_eq!(cut_result, result, "{message:?} cut at {cut}");
        }
        (result, whole.is_done())
    }

    #[test]
    fn received_fields_are_counted_in_any_case_and_before_the_body_only() {
        let message = "Received: a\r\n by b\r\nRECEIVED : c\r\nReceived-SPF: pass\r\nX: Received: no\r\n\r\nReceived: body\r\n";
        assert_eq!(scan(message, 1000, 2), (Ok(()), true));
        assert_eq!(scan(message, 1000, 1).0, Err(HeaderFault::TooManyReceived));
    }

    #[test]
    fn a_header_has_its_limit_and_a_body_none() {
        let message = "A: 123\r\n\r\nthe body\r\n";
        assert_eq!(scan(message, 8, 0), (Ok(()), true));
        assert_eq!(scan(message, 7, 0).0, Err(HeaderFault::TooLarge));
        assert_eq!(scan("A: 123\r\nB: 123\r\n", 8, 0).0, Err(HeaderFault::TooLarge));
        assert_eq!(scan("A: 123\r\n continued\r\n", 8, 0).0, Err(HeaderFault::TooLarge));
        assert_eq!(scan("A: 123456789", 9, 0).0, Err(HeaderFault::TooLarge));
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        for message in [
            "hello world\r\n",
            " continued\r\n",
            "\r\n",
            "A: b\r\n: c\r\n",
            "caf\u{e9}: x\r\n",
            "From me Mon\r\n",
        ] {
            assert!(scan(message, 1000, 0).1, "{message:?}");
        }
        assert!(!scan("A: b\r\n c\r\n", 1000, 0).1);
    }

    #[test]
    fn the_first_fault_in_the_order_of_the_bytes_is_told() {
        assert_eq!(scan("Received: a\r\nReceived: b\r\n", 15, 1).0, Err(HeaderFault::TooLarge));
        assert_eq!(scan("Received: a\r\nReceived: b\r\n", 23, 1).0, Err(HeaderFault::TooManyReceived));
    }
}
