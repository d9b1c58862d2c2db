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

/// A message in chunks of the sizes given, the last of them without an end.
fn read_chunks(newline: BareNewline, chunks: &[&[u8]]) -> (Vec<u8>, Vec<DataFault>) {
    let mut reader = DataReader::of_chunks(newline);
    let (mut message, mut faults) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let mut rest = *chunk;
        while !rest.is_empty() {
            let (taken, progress) = reader.read(rest, &mut message);
            rest = &rest[taken..];
            if let Progress::Fault(fault) = progress {
                faults.push(fault);
            }
        }
    }
    faults.extend(reader.end(&mut message).err());
    (message, faults)
}

#[test]
fn in_chunks_dots_are_dots_and_a_cr_waits_for_the_next_chunk() {
    use BareNewline::{Normalize, Reject};
    let rows: [(BareNewline, &[&str], &str, &[DataFault]); 15] = [
        (Reject, &[], "", &[]),
        (Reject, &[""], "", &[]),
        (Reject, &["a: b\r\n", "\r\n", "."], "a: b\r\n\r\n.\r\n", &[]),
        (Reject, &[".\r\n..\r\n.", "\r\n"], ".\r\n..\r\n.\r\n", &[]),
        (Reject, &["a\r", "\nb"], "a\r\nb\r\n", &[]),
        (Reject, &["a\r", "", "\nb\r\n"], "a\r\nb\r\n", &[]),
        (Reject, &["a\r", "b"], "a\rb\r\n", &[BareCr]),
        (Reject, &["a\r"], "a\r\r\n", &[BareCr]),
        (Reject, &["a", "\nb\0"], "a\nb\0\r\n", &[BareLf, Nul]),
        (Normalize, &["a\r"], "a \r\n", &[]),
        (Normalize, &["a\r\n\r"], "a\r\n \r\n", &[]),
        (Normalize, &["a\n"], "a\r\n", &[]),
        (Normalize, &["a", "\n"], "a\r\n", &[]),
        (Normalize, &["\n.", "\n.\r\n"], "\r\n.\r\n.\r\n", &[]),
        (Normalize, &["\0\r", "\r\n"], "  \r\n", &[]),
    ];
    for (newline, chunks, message, faults) in rows {
        let bytes: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
        assert_eq!(read_chunks(newline, &bytes), (message.into(), faults.to_vec()), "{newline:?} {chunks:?}");
    }
}

proptest! {
    #[test]
    fn chunks_and_a_dot_bring_the_same_message(text in "[a.\r\n\0]{0,30}", cut in 0usize..30) {
        let text = text.as_bytes();
        let (first, second) = text.split_at(cut.min(text.len()));
        for newline in [BareNewline::Reject, BareNewline::Normalize] {
            let (message, faults) = read_chunks(newline, &[text]);
            prop_assert_eq!(read_chunks(newline, &[first, second]), (message.clone(), faults.clone()));
            if faults.iter().all(|fault| *fault == Nul) {
                let mut stuffed = Vec::new();
                let mut writer = DataWriter::new();
                writer.write(&message, &mut stuffed);
                writer.end(&mut stuffed);
                prop_assert_eq!(read(BareNewline::Reject, &stuffed).message, message);
            }
        }
    }

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
