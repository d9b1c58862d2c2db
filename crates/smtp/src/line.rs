//! Command lines: CRLF ends one, nothing else does.

use memchr::memchr;

/// What the front of a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// No CRLF yet, and still within the limit.
    Incomplete,
    /// A line without its CRLF. It has no LF; it may have a CR, which the command parser refuses.
    Complete(&'a [u8]),
    /// The first LF has no CR before it. Answer now, then swallow to the CRLF: what follows the LF is no command.
    BareLf,
    /// The limit is reached without a CRLF. Swallow to the CRLF, then answer.
    TooLong,
}

/// Looks for one line at the front of `input`; `limit` counts its CRLF too. The answer for a given line is the same
/// however the bytes arrive.
pub fn take_line(input: &[u8], limit: usize) -> Line<'_> {
    let window = input.get(..limit).unwrap_or(input);
    match memchr(b'\n', window) {
        Some(lf) => match window.get(..lf).and_then(|line| line.strip_suffix(b"\r")) {
            Some(line) => Line::Complete(line),
            None => Line::BareLf,
        },
        None if window.len() == limit => Line::TooLong,
        None => Line::Incomplete,
    }
}

/// How much of `input` belongs to the line that is being swallowed, and whether it ends there.
/// `after_cr` says whether the byte before `input` was a CR.
pub(crate) fn swallow_line(input: &[u8], after_cr: bool) -> (usize, bool) {
    let mut from = 0;
    while let Some(found) = input.get(from..).and_then(|rest| memchr(b'\n', rest)) {
        let lf = from + found;
        let cr = if lf == 0 { after_cr } else { input.get(lf - 1) == Some(&b'\r') };
        if cr {
            return (lf + 1, true);
        }
        from = lf + 1;
    }
    (input.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(take_line(b"NOOP\r\nQUIT\r\n", 12), Line::Complete(b"NOOP"));
        assert_eq!(take_line(b"\r\n", 12), Line::Complete(b""));
        assert_eq!(take_line(b"NOOP\nQUIT\r\n", 12), Line::BareLf);
        assert_eq!(take_line(b"\n", 12), Line::BareLf);
        assert_eq!(take_line(b"NO\rOP\r\n", 12), Line::Complete(b"NO\rOP"));
        assert_eq!(take_line(b"NOOP\r", 12), Line::Incomplete);
        assert_eq!(take_line(b"", 12), Line::Incomplete);
    }

    #[test]
    fn the_limit_counts_the_line_end() {
        assert_eq!(take_line(b"NOOP\r\n", 6), Line::Complete(b"NOOP"));
        assert_eq!(take_line(b"NOOPS\r\n", 6), Line::TooLong);
        assert_eq!(take_line(b"NOOPSX", 6), Line::TooLong);
        assert_eq!(take_line(b"NOOPS", 6), Line::Incomplete);
    }

    #[test]
    fn a_swallowed_line_ends_at_its_crlf_only() {
        assert_eq!(swallow_line(b"x\ny\r\nz", false), (5, true));
        assert_eq!(swallow_line(b"\nz", true), (1, true));
        assert_eq!(swallow_line(b"\nz", false), (2, false));
        assert_eq!(swallow_line(b"x\r", false), (2, false));
        assert_eq!(swallow_line(b"", true), (0, false));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_found_line(input in "[a\r\n]{0,20}", limit in 2usize..12) {
            let whole = take_line(input.as_bytes(), limit);
            for cut in 0..input.len() {
                let part = take_line(&input.as_bytes()[..cut], limit);
                prop_assert!(part == Line::Incomplete || part == whole);
            }
        }

        #[test]
        fn swallowing_does_not_depend_on_the_pieces(input in "[a\r\n]{0,20}", cut in 0usize..20) {
            let bytes = input.as_bytes();
            let cut = cut.min(bytes.len());
            let (first, done) = swallow_line(&bytes[..cut], false);
            let whole = swallow_line(bytes, false);
            if done {
                prop_assert_eq!((first, done), whole);
            } else {
                let (second, done) = swallow_line(&bytes[cut..], bytes[..cut].ends_with(b"\r"));
                prop_assert_eq!((cut + second, done), whole);
            }
        }
    }
}
