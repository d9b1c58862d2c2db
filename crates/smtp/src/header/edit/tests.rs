use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn removals() -> Removals {
    Removals::default().field("X-Torwart-*").field("X-Spam").authserv_id("mx.Example.net")
}

fn edit(message: &[u8], pieces: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut editor = HeaderEditor::new(removals());
    let mut kept = Vec::new();
    let mut left = message;
    for size in pieces.chain(std::iter::once(usize::MAX)) {
        let (piece, rest) = left.split_at(size.min(left.len()));
        let after = editor.edit(piece, &mut kept);
        assert!(after.is_empty() || editor.is_done());
        kept.extend_from_slice(after);
        assert!(editor.held.len() <= HeaderEditor::MOST_HELD);
        left = rest;
    }
    editor.finish(&mut kept);
    kept
}

/// In any pieces.
fn edited(message: &str) -> String {
    let whole = edit(message.as_bytes(), std::iter::empty());
    for size in [1, 2, 3, 7] {
        let pieces = edit(message.as_bytes(), std::iter::repeat_n(size, message.len()));
        assert_eq!(pieces, whole, "{message:?} in pieces of {size}");
    }
    String::from_utf8(whole).unwrap()
}

#[test]
fn what_is_named_goes_with_its_continuations_and_nothing_else_does() {
    let table = [
        ("X-Torwart-Score: 1\r\nTo: a\r\n\r\nX-Torwart-Id: b\r\n", "To: a\r\n\r\nX-Torwart-Id: b\r\n"),
        ("To: a\r\nx-torWART-status: yes,\r\n a\r\n\tb\r\nCc: c\r\n\r\n", "To: a\r\nCc: c\r\n\r\n"),
        ("X-Spam: 1\r\nX-Spam-Flag: 1\r\nX-Spam : 1\r\nX-SPAM\t:\r\n\r\n", "X-Spam-Flag: 1\r\n\r\n"),
        ("X-Torwart-Id: 1", ""),
        ("X-Torwart-Id", "X-Torwart-Id"),
        ("X-Torwart-Id x: 1\r\n\r\n", "X-Torwart-Id x: 1\r\n\r\n"),
        ("X-Torwart: 1\r\n\r\n", "X-Torwart: 1\r\n\r\n"),
        ("X-Torwart-: 1\r\n\r\n", "\r\n"),
        ("Subject: a\r\n X-Torwart-Id: 1\r\n\r\n", "Subject: a\r\n X-Torwart-Id: 1\r\n\r\n"),
        ("\r\nX-Spam: 1\r\n", "\r\nX-Spam: 1\r\n"),
        ("", ""),
        // a lax reader goes on behind a line that is no field
        ("no field\r\nX-Spam: 1\r\nTo: a\r\n\r\nX-Spam: 1\r\n", "no field\r\nTo: a\r\n\r\nX-Spam: 1\r\n"),
        ("caf\u{e9}: 1\r\nX-Spam: 1\r\n\r\n", "caf\u{e9}: 1\r\n\r\n"),
        (": 1\r\nX-Spam: 1\r\n\r\n", ": 1\r\n\r\n"),
        ("name\r\nX-Spam: 1\r\n\r\n", "name\r\n\r\n"),
    ];
    for (message, expected) in table {
        assert_eq!(edited(message), expected, "{message:?}");
    }
}

#[test]
fn authentication_results_go_if_they_claim_to_be_ours() {
    let ours = [
        "mx.example.net; spf=pass",
        " MX.EXAMPLE.NET 1; spf=pass smtp.mailfrom=a@b",
        "\r\n mx.example.net;\r\n\tspf=pass",
        " (comment) mx.example.net; none",
        " (a (nested \\) one) \\\\) mx.example.net (mx.other.example) ;none",
        " (\r\n folded) \t mx.example.net",
        " \"mx.example.net\"; none",
        " \"mx.ex\\ample.net\" 1; none",
        " mx.example.net.; none",
        " mx.example.net(no blank)1; none",
        " mx.example.net",
    ];
    let others = [
        " mx.other.example; spf=pass",
        " other.example 1; x=mx.example.net",
        " (mx.example.net) other.example; none",
        " mx.example.net.other.example; none",
        " xmx.example.net; none",
        " mx.example; none",
        " \"mx.example.net other\"; none",
        "; mx.example.net",
        "",
        " spf=pass mx.example.net",
        " (mx.example.net; none",
        " \"mx.example.net; none",
    ];
    for name in ["Authentication-Results", "AUTHENTICATION-results ", "authentication-results\t"] {
        for value in ours {
            let message = format!("To: a\r\n{name}:{value}\r\nCc: b\r\n\r\nbody");
            assert_eq!(edited(&message), "To: a\r\nCc: b\r\n\r\nbody", "{message:?}");
        }
        for value in others {
            let message = format!("To: a\r\n{name}:{value}\r\nCc: b\r\n\r\nbody");
            assert_eq!(edited(&message), message);
        }
    }
    let other_field = "ARC-Authentication-Results: i=1; mx.example.net; none\r\n\r\n";
    assert_eq!(edited(other_field), other_field);
}

#[test]
fn without_an_authserv_id_every_authentication_results_stays() {
    let message = b"Authentication-Results: mx.example.net; none\r\n\r\n";
    let mut kept = Vec::new();
    let mut editor = HeaderEditor::new(Removals::default());
    let rest = editor.edit(message, &mut kept);
    kept.extend_from_slice(rest);
    assert_eq!(kept, message);
}

#[test]
fn a_message_that_begins_with_a_blank_continues_no_field_of_ours() {
    assert_eq!(edited(" a\r\nX-Spam: 1\r\n"), "\r\n a\r\nX-Spam: 1\r\n");
    assert_eq!(edited("\tX: 1\r\n"), "\r\n\tX: 1\r\n");
}

#[test]
fn what_is_held_back_has_a_bound() {
    let long = "x".repeat(2 * HeaderEditor::MOST_HELD);
    let name = format!("{long}: 1\r\n\r\n");
    assert!(edit(name.as_bytes(), std::iter::empty()) == name.as_bytes());
    let hidden = format!("Authentication-Results: ({long}) other.example; none\r\nTo: a\r\n\r\n");
    assert_eq!(edit(hidden.as_bytes(), std::iter::repeat_n(1000, 200)), b"To: a\r\n\r\n");
}

/// What must stay, said in another way: line by line over the whole message.
fn reference(message: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    if matches!(message.first(), Some(b' ' | b'\t')) {
        kept.extend_from_slice(b"\r\n");
        kept.extend_from_slice(message);
        return kept;
    }
    let mut lines = message.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if line.starts_with(b"\r") || line.starts_with(b"\n") {
            kept.extend_from_slice(line);
            lines.for_each(|line| kept.extend_from_slice(line));
            break;
        }
        let mut field = line.to_vec();
        while let Some(more) = lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
            field.extend_from_slice(more);
        }
        if !goes(&field) {
            kept.extend_from_slice(&field);
        }
    }
    kept
}

fn goes(field: &[u8]) -> bool {
    let text: String = field.iter().map(|byte| char::from(*byte)).collect();
    let Some((name, value)) = text.split_once(':') else { return false };
    let name = name.trim_end_matches([' ', '\t']);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic()) {
        return false;
    }
    let name = name.to_ascii_lowercase();
    if name == "x-spam" || name.starts_with("x-torwart-") {
        return true;
    }
    if name != "authentication-results" {
        return false;
    }
    let value = value.trim_start_matches(['\r', '\n', ' ', '\t']);
    let end = value.find([' ', '\t', '\r', '\n', ';', '(']).unwrap_or(value.len());
    value[..end].eq_ignore_ascii_case("mx.example.net")
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "X-Torwart-Id: 1",
        "x-torwart-score : 2",
        "X-Spam: 3",
        "X-Spam",
        "To: a",
        " continued",
        "\tcontinued",
        "Authentication-Results: mx.example.net; none",
        "Authentication-Results:",
        " mx.example.net; none",
        "Authentication-Results: other.example; none",
        "authentication-results:\tMX.example.NET 1",
        "no field",
    ];
    prop_oneof![
        8 => select(known.to_vec()).prop_map(|text| [text.as_bytes(), b"\r\n"].concat()),
        1 => Just(b"\r\n".to_vec()),
        2 => vec(any::<u8>().prop_filter("", |b| !matches!(b, b'\r' | b'\n' | b'(' | b'"' | b'.')), 0..20)
            .prop_map(|bytes| [&*bytes, b"\r\n"].concat()),
    ]
}

proptest! {
    #[test]
    fn the_rest_is_the_message_byte_for_byte(
        lines in vec(line(), 0..12),
        cut in any::<prop::sample::Index>(),
        pieces in vec(0..40_usize, 0..40),
    ) {
        let mut message = lines.concat();
        message.truncate(cut.index(message.len() + 1));
        let kept = edit(&message, pieces.into_iter());
        let expected = reference(&message);
        prop_assert_eq!(String::from_utf8_lossy(&kept), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn any_bytes_in_any_pieces_come_out_alike_and_in_order(
        message in vec(prop_oneof![any::<u8>(), select(&b"Xx-:;() \r\n\"\\mnet."[..])], 0..300),
        pieces in vec(0..20_usize, 0..60),
    ) {
        let whole = edit(&message, std::iter::empty());
        prop_assert_eq!(&edit(&message, pieces.into_iter()), &whole);
        let mut left = message.iter();
        let added = if matches!(message.first(), Some(b' ' | b'\t')) { 2 } else { 0 };
        prop_assert!(whole.iter().skip(added).all(|byte| left.any(|other| other == byte)));
    }
}
