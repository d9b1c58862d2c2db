//! Takes header fields out of a message while it goes by. Nothing else of it changes, byte for byte.

mod authserv;
#[cfg(test)]
mod tests;

use memchr::memchr;

use self::authserv::AuthservId;

/// Which header fields are taken out. Case does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// In lower case.
    names: Vec<Box<[u8]>>,
    /// The beginnings of names, in lower case.
    prefixes: Vec<Box<[u8]>>,
    authserv_ids: Vec<Box<[u8]>>,
}

/// A message's way from the client to the upstream.
///
/// Fields are looked for up to the first empty line, and not only up to the first line that is no field, where
/// [`super::HeaderScanner`] sees the end of the header: readers differ, and the laxest of them must not find a forged
/// field. A message whose first byte is a blank or a tab has no header; it gets an empty line on top, since it would
/// continue the field that stands above it.
///
/// A field is held back until it is known whether it stays: its name, and of Authentication-Results what stands before
/// the authserv-id. One that needs more than [`HeaderEditor::MOST_HELD`] for that is no name, or hides its authserv-id
/// behind comments: the former stays, the latter goes.
#[derive(Clone, Debug)]
pub struct HeaderEditor {
    removals: Removals,
    place: Place,
    /// Of a field that is not decided yet.
    held: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Start,
    /// At a line's start, inside a field or behind it.
    LineStart(Fate),
    /// In what may become a field's name, all of it in `held`. True: blanks have followed it (RFC 5322 section 4.5).
    Name(bool),
    Value(Fate),
    /// Behind the empty line, or in a message without a header.
    Body,
}

/// What becomes of the field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
    /// Until its authserv-id is read; all of it is in `held`.
    Open(AuthservId),
}

const AUTHENTICATION_RESULTS: &[u8] = b"authentication-results";

// === impl Removals ===

impl Removals {
    /// Fields of this name; with an ending `*` all whose names begin so.
    pub fn field(mut self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.strip_suffix('*') {
            Some(prefix) => self.prefixes.push(prefix.as_bytes().into()),
            None => self.names.push(name.as_bytes().into()),
        }
        self
    }

    /// Authentication-Results with this authserv-id (RFC 8601 section 5), with or without a dot behind it.
    pub fn authserv_id(mut self, id: &str) -> Self {
        self.authserv_ids.push(id.to_ascii_lowercase().trim_end_matches('.').as_bytes().into());
        self
    }

    fn take_out(&self, name: &[u8]) -> bool {
        let begins =
            |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
            || self.prefixes.iter().any(|prefix| begins(prefix))
    }

    fn fate(&self, name: &[u8]) -> Fate {
        if self.take_out(name) {
            Fate::Goes
        } else if !self.authserv_ids.is_empty() && name.eq_ignore_ascii_case(AUTHENTICATION_RESULTS) {
            Fate::Open(AuthservId::default())
        } else {
            Fate::Stays
        }
    }

    fn is_ours(&self, id: &[u8]) -> bool {
        let id = id.strip_suffix(b".").unwrap_or(id);
        self.authserv_ids.iter().any(|ours| ours.eq_ignore_ascii_case(id))
    }
}

// === impl HeaderEditor ===

impl HeaderEditor {
    /// Octets that are held back at most. No honest field needs a hundredth of it.
    pub const MOST_HELD: usize = 64 * 1024;

    pub fn new(removals: Removals) -> Self {
        Self { removals, place: Place::Start, held: Vec::new() }
    }

    /// Whether whatever comes stays.
    pub fn is_done(&self) -> bool {
        self.place == Place::Body
    }

    /// Takes the next bytes of the message (without stuffing dots). What stays is what is appended to `kept`, and then
    /// what is returned: the end of `message`, as soon as the header is over.
    pub fn edit<'a>(&mut self, mut message: &'a [u8], kept: &mut Vec<u8>) -> &'a [u8] {
        while let Some((&byte, rest)) = message.split_first() {
            let place = std::mem::replace(&mut self.place, Place::Body);
            (self.place, message) = match place {
                Place::Body => return message,
                Place::Start if is_blank(byte) => {
                    kept.extend_from_slice(b"\r\n");
                    return message;
                }
                Place::LineStart(fate) if is_blank(byte) => self.value(fate, message, kept),
                Place::Start => self.begin(byte, rest, message, kept),
                Place::LineStart(fate) => {
                    self.decide(fate, kept);
                    self.begin(byte, rest, message, kept)
                }
                Place::Name(blanks) => (self.name(byte, blanks, kept), rest),
                Place::Value(fate) => self.value(fate, message, kept),
            };
        }
        message
    }

    /// The message is over: what was held back and stays.
    pub fn finish(&mut self, kept: &mut Vec<u8>) {
        match std::mem::replace(&mut self.place, Place::Body) {
            Place::LineStart(fate) | Place::Value(fate) => self.decide(fate, kept),
            Place::Start | Place::Name(_) | Place::Body => kept.append(&mut self.held),
        }
        self.held = Vec::new();
    }

    /// The first byte of a line that does not continue the one before.
    fn begin<'a>(
        &mut self,
        byte: u8,
        rest: &'a [u8],
        message: &'a [u8],
        kept: &mut Vec<u8>,
    ) -> (Place, &'a [u8]) {
        match byte {
            b'\r' | b'\n' => {
                self.held = Vec::new();
                (Place::Body, message)
            }
            _ if is_name(byte) => {
                self.held.push(byte);
                (Place::Name(false), rest)
            }
            _ => self.value(Fate::Stays, message, kept),
        }
    }

    fn name(&mut self, byte: u8, blanks: bool, kept: &mut Vec<u8>) -> Place {
        let name = self.held.len();
        self.held.push(byte);
        let place = match byte {
            b':' => {
                let name = self.held.get(..name).unwrap_or_default().trim_ascii_end();
                Place::Value(self.removals.fate(name))
            }
            b' ' | b'\t' => Place::Name(true),
            _ if is_name(byte) && !blanks => Place::Name(false),
            // no field
            b'\n' => Place::LineStart(Fate::Stays),
            _ => Place::Value(Fate::Stays),
        };
        match &place {
            Place::Name(_) if self.held.len() >= Self::MOST_HELD => {
                kept.append(&mut self.held);
                Place::Value(Fate::Stays)
            }
            Place::Value(Fate::Stays) | Place::LineStart(_) => {
                kept.append(&mut self.held);
                place
            }
            Place::Value(Fate::Goes) => {
                self.held.clear();
                place
            }
            Place::Value(Fate::Open(_)) | Place::Name(_) | Place::Start | Place::Body => place,
        }
    }

    /// Up to the line's end.
    fn value<'a>(&mut self, fate: Fate, message: &'a [u8], kept: &mut Vec<u8>) -> (Place, &'a [u8]) {
        let mut fate = fate;
        if let Fate::Open(id) = &mut fate {
            let Some((&byte, rest)) = message.split_first() else { return (Place::Value(fate), message) };
            self.held.push(byte);
            let found = match id.next(byte) {
                Some(id) => Some(self.removals.is_ours(&id)),
                None => (self.held.len() >= Self::MOST_HELD).then_some(true),
            };
            match found {
                Some(true) => {
                    self.held = Vec::new();
                    fate = Fate::Goes;
                }
                Some(false) => {
                    kept.append(&mut self.held);
                    fate = Fate::Stays;
                }
                None => {}
            }
            let place = if byte == b'\n' { Place::LineStart(fate) } else { Place::Value(fate) };
            return (place, rest);
        }
        let (line, rest, is_whole) = match memchr(b'\n', message) {
            Some(lf) => {
                let (line, rest) = message.split_at_checked(lf + 1).unwrap_or((message, b""));
                (line, rest, true)
            }
            None => (message, &b""[..], false),
        };
        if fate == Fate::Stays {
            kept.extend_from_slice(line);
        }
        (if is_whole { Place::LineStart(fate) } else { Place::Value(fate) }, rest)
    }

    /// The field is over.
    fn decide(&mut self, fate: Fate, kept: &mut Vec<u8>) {
        if let Fate::Open(id) = fate
            && !id.end().is_some_and(|id| self.removals.is_ours(&id))
        {
            kept.append(&mut self.held);
        }
        self.held.clear();
    }
}

/// RFC 5322 section 2.2, `ftext`.
fn is_name(byte: u8) -> bool {
    matches!(byte, b'!'..=b'9' | b';'..=b'~')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
