use proptest::prelude::*;

use super::*;

/// The message, the faults, and how many bytes were taken if the message ended.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    message: Vec<u8>,
    faults: Vec<DataFault>,
    end: Option<usize>,
}

fn read_pieces<'a>(newline: BareNewline, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = DataReader::new(newline);
    let mut outcome = Outcome { message: Vec::new(), faults: Vec::new(), end: None };
    let mut total = 0;
    for mut piece in pieces {
        while !piece.is_empty() && outcome.end.is_none() {
            let before = outcome.message.len();
            let (taken, progress) = reader.read(piece, &mut outcome.message);
            assert!(outcome.message.len() - before <= 2 * taken + 2);
            total += taken;
            piece = &piece[taken..];
            match progress {
                Progress::More => assert!(piece.is_empty()),
                Progress::Fault(fault) => outcome.faults.push(fault),
                Progress::End => outcome.end = Some(total),
            }
        }
    }
    outcome
}

/// Reads whole, byte by byte and cut at each place; all must agree.
fn read(newline: BareNewline, input: &[u8]) -> Outcome {
    let whole = read_pieces(newline, std::iter::once(input));
    assert_eq!(
        read_pieces(newline, input.chunks(1)),
        whole,
        "{:?} byte by byte",
        input.escape_ascii().to_string()
    );
    for cut in 0..=input.len() {
        let (first, second) = input.split_at(cut);
        assert_eq!(read_pieces(newline, [first, second].into_iter()), whole, "cut at {cut}");
    }
    whole
}

fn ended(message: &str, faults: &[DataFault], end: usize) -> Outcome {
    Outcome { message: message.into(), faults: faults.to_vec(), end: Some(end) }
}

fn open(message: &str, faults: &[DataFault]) -> Outcome {
    Outcome { message: message.into(), faults: faults.to_vec(), end: None }
}

use DataFault::{BareCr, BareLf, Nul};

#[test]
fn the_start_of_the_data_is_a_line_start() {
    let rows: [(&str, Outcome); 5] = [
        (".\r\n", ended("", &[], 3)),
        ("..a\r\n.\r\n", ended(".a\r\n", &[], 8)),
        ("\r\n.\r\n", ended("\r\n", &[], 5)),
        ("a\r\n.\r\n", ended("a\r\n", &[], 6)),
        ("a\n.\r\nb\r\n.\r\n", ended("a\n.\r\nb\r\n", &[BareLf], 11)),
    ];
    for (input, wanted) in rows {
        assert_eq!(read(BareNewline::Reject, input.as_bytes()), wanted, "{input:?}");
    }
}

#[test]
fn only_crlf_dot_crlf_ends_a_message() {
    let rows: [(&str, Outcome); 12] = [
        ("a\r\n.\r\r\n", open("a\r\n\r\r\n", &[BareCr])),
        ("a\r\n.\r\r\r\n", open("a\r\n\r\r\r\n", &[BareCr, BareCr])),
        ("a\r\n.\n", open("a\r\n\n", &[BareLf])),
        ("a\n.\n", open("a\n.\n", &[BareLf, BareLf])),
        ("a\r.\r\n", open("a\r.\r\n", &[BareCr])),
        ("a\r.\rb", open("a\r.\rb", &[BareCr, BareCr])),
        ("a\n.\r\n", open("a\n.\r\n", &[BareLf])),
        ("a\r\n. \r\n", open("a\r\n \r\n", &[])),
        ("a\r\n..\r\n", open("a\r\n.\r\n", &[])),
        ("a\r\n.a\r\n", open("a\r\na\r\n", &[])),
        ("\0.\r\n", open("\0.\r\n", &[Nul])),
        ("a\r\n\0.\r\n", open("a\r\n\0.\r\n", &[Nul])),
    ];
    for (input, wanted) in rows {
        assert_eq!(read(BareNewline::Reject, input.as_bytes()), wanted, "{input:?}");
    }
}

#[test]
fn a_normalised_line_end_is_no_end_of_data() {
    let rows: [(&str, Outcome); 12] = [
        ("a\n.\nb", open("a\r\n.\r\nb", &[])),
        ("a\n.\r\nb", open("a\r\n.\r\nb", &[])),
        ("a\r.\r\nb", open("a .\r\nb", &[])),
        ("a\r\n.\nb", open("a\r\n\r\nb", &[])),
        ("a\r\n.\rb", open("a\r\n b", &[])),
        ("a\r\r\nb", open("a \r\nb", &[])),
        ("a\n..\r\nb", open("a\r\n..\r\nb", &[])),
        ("a\0b", open("a b", &[])),
        ("a\r\n\0.\r\n", open("a\r\n .\r\n", &[])),
        ("a\r\n.\0\r\n", open("a\r\n \r\n", &[])),
        ("a\r\0\nb", open("a  \r\nb", &[])),
        ("a\nb\n.\r\n.\r\n", ended("a\r\nb\r\n.\r\n", &[], 10)),
    ];
    for (input, wanted) in rows {
        assert_eq!(read(BareNewline::Normalize, input.as_bytes()), wanted, "{input:?}");
    }
}

#[test]
fn bytes_behind_the_end_are_not_taken() {
    assert_eq!(read(BareNewline::Reject, b"a\r\n.\r\nQUIT\r\n"), ended("a\r\n", &[], 6));
}

#[test]
fn a_spoiled_message_still_has_an_end() {
    let mut reader = DataReader::new(BareNewline::Reject);
    reader.ignore_faults();
    assert_eq!(reader.read(b"a\nb\0\rc\r\n.\r\nrest", &mut Vec::new()), (11, Progress::End));
}

fn write_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut writer = DataWriter::new();
    let mut output = Vec::new();
    pieces.for_each(|piece| writer.write(piece, &mut output));
    writer.end(&mut output);
    output
}

#[test]
fn every_line_that_begins_with_a_dot_is_stuffed() {
    let rows = [
        ("", ".\r\n"),
        (".", "..\r\n.\r\n"),
        ("a", "a\r\n.\r\n"),
        ("a\r\n", "a\r\n.\r\n"),
        (".\r\n.\r\na.b\r\n", "..\r\n..\r\na.b\r\n.\r\n"),
        ("\r\n", "\r\n.\r\n"),
    ];
    for (message, wanted) in rows {
        assert_eq!(write_pieces(std::iter::once(message.as_bytes())), wanted.as_bytes(), "{message:?}");
        assert_eq!(write_pieces(message.as_bytes().chunks(1)), wanted.as_bytes(), "{message:?}");
    }
}

/// Bytes that mean something here, and some that do not.
fn tricky() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), Just(b' '), Just(0u8), any::<u8>()],
        0..40,
    )
}

proptest! {
    #[test]
    fn what_was_written_reads_back(lines in proptest::collection::vec("\\.{0,3}[a. \u{e9}]{0,5}", 0..10), cut in 0usize..60) {
        let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let cut = cut.min(message.len());
        let (first, second) = message.as_bytes().split_at(cut);
        let written = write_pieces([first, second].into_iter());
        for newline in [BareNewline::Reject, BareNewline::Normalize] {
            prop_assert_eq!(read(newline, &written), ended(&message, &[], written.len()));
        }
    }

    #[test]
    fn pieces_make_no_difference(input in tricky()) {
        read(BareNewline::Reject, &input);
        read(BareNewline::Normalize, &input);
    }

    #[test]
    fn a_message_without_fault_or_made_normal_has_line_ends_in_pairs(input in tricky()) {
        let normal = read(BareNewline::Normalize, &input);
        prop_assert!(normal.faults.is_empty() && !normal.message.contains(&0));
        let normal = normal.message;
        let strict = read(BareNewline::Reject, &input);
        let mut clean = vec![normal];
        if !strict.faults.iter().any(|fault| *fault != Nul) {
            clean.push(strict.message);
        }
        for message in clean {
            for (i, byte) in message.iter().enumerate() {
                match byte {
                    // A CR at the very end may still get its LF.
                    b'\r' => prop_assert!(message.get(i + 1).is_none_or(|next| *next == b'\n')),
                    b'\n' => prop_assert_eq!(message.get(i.wrapping_sub(1)), Some(&b'\r')),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_written_message_ends_where_it_ends_for_a_lax_reader_too(input in tricky()) {
        let normal = read(BareNewline::Normalize, &input);
        let written = write_pieces(std::iter::once(normal.message.as_slice()));
        // The laxest server there is: any of CR, LF and CRLF is a line end.
        let lax: Vec<u8> = written.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte }).collect();
        let end = lax.windows(3).position(|window| window == b"\n.\n");
        prop_assert!(end.is_none_or(|end| end + 4 == written.len()));
    }
}
