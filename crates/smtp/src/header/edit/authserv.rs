//! Reads the authserv-id of an Authentication-Results field (RFC 8601 section 2.2), byte by byte.

/// What stands behind the colon, as far as it has come:
///
/// ```text
///   [CFWS] authserv-id [CFWS version] ;        authserv-id = token / quoted-string (RFC 2045 section 5.1)
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AuthservId {
    id: Vec<u8>,
    part: Part,
    /// How many comments are open (RFC 5322 section 3.2.2: they nest).
    comments: u32,
    /// A backslash went before.
    escaped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Before,
    Token,
    Quoted,
}

// === impl AuthservId ===

impl AuthservId {
    /// Takes the next byte; the id, once it is over.
    pub(super) fn next(&mut self, byte: u8) -> Option<Vec<u8>> {
        let escaped = std::mem::take(&mut self.escaped);
        if self.comments > 0 {
            match byte {
                _ if escaped => {}
                b'\\' => self.escaped = true,
                b'(' => self.comments = self.comments.saturating_add(1),
                b')' => self.comments -= 1,
                _ => {}
            }
            return None;
        }
        match (self.part, byte) {
            (Part::Quoted, b'"') if !escaped => return Some(std::mem::take(&mut self.id)),
            (Part::Quoted, b'\\') if !escaped => self.escaped = true,
            // folding inside of quotes is not part of them (RFC 5322 section 3.2.4)
            (Part::Quoted, b'\r' | b'\n') => {}
            (Part::Quoted, _) => self.id.push(byte),
            (Part::Before, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Part::Before, b'(') => self.comments = 1,
            (Part::Before, b'"') => self.part = Part::Quoted,
            (Part::Token, b' ' | b'\t' | b'\r' | b'\n' | b'(') | (_, b';') => {
                return Some(std::mem::take(&mut self.id));
            }
            (Part::Before | Part::Token, _) => {
                self.part = Part::Token;
                self.id.push(byte);
            }
        }
        None
    }

    /// The field is over: the id that nothing followed. `None` if there is none, or its quotes are open.
    pub(super) fn end(self) -> Option<Vec<u8>> {
        (self.part == Part::Token).then_some(self.id)
    }
}
