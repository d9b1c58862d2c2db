use proptest::prelude::*;

use super::*;

fn written(reply: &Reply) -> String {
    let mut output = Vec::new();
    reply.write_to(&mut output);
    String::from_utf8(output).unwrap()
}

/// All replies of `input`, and the fault that ended it. `size` is how many bytes come at a time.
fn parse(input: &[u8], size: usize) -> (Vec<Reply>, Option<ReplyFault>) {
    let mut parser = ReplyParser::default();
    let mut replies = Vec::new();
    for mut piece in input.chunks(size.max(1)) {
        while !piece.is_empty() {
            match parser.receive(piece) {
                Ok((taken, reply)) => {
                    assert!(taken <= piece.len());
                    assert!(reply.is_some() || taken == piece.len());
                    piece = &piece[taken..];
                    replies.extend(reply);
                }
                Err(fault) => {
                    assert_eq!(parser.receive(b"250 OK\r\n"), Err(fault), "a fault stays");
                    return (replies, Some(fault));
                }
            }
        }
    }
    (replies, None)
}

#[test]
fn every_line_has_code_and_enhanced_code() {
    let reply =
        Reply { code: 550, enhanced: Some((5, 1, 1)), lines: vec!["no such user".into(), "sorry".into()] };
    assert_eq!(written(&reply), "550-5.1.1 no such user\r\n550 5.1.1 sorry\r\n");
    assert_eq!(reply.to_string(), "550 5.1.1 no such user / sorry");
    assert_eq!(written(&Reply::plain(354, "go")), "354 go\r\n");
    assert_eq!(written(&Reply { code: 250, enhanced: None, lines: vec![] }), "250 \r\n");
}

#[test]
fn a_text_cannot_smuggle_a_reply() {
    assert_eq!(written(&Reply::new(450, (4, 2, 0), "a\r\n250 b\0\u{e9}")), "450 4.2.0 a??250 b???\r\n");
    assert_eq!(written(&Reply::plain(450, "x".repeat(9999))).len(), limits::REPLY_LINE_OUT);
}

#[test]
fn replies_are_read_with_their_enhanced_codes() {
    let input = b"220 mx ESMTP\r\n250-mx\r\n250-SIZE 10\r\n250 STARTTLS\r\n550-5.1.1 no\r\n550 5.1.1 user\r\n250\r\n354 5.1.1 go\r\n550 5.1.01 x\r\n";
    for size in [1, 2, 3, input.len()] {
        let (replies, fault) = parse(input, size);
        assert_eq!(fault, None);
        let shown: Vec<_> =
            replies.iter().map(|reply| (reply.code, reply.enhanced, reply.lines.join("|"))).collect();
        assert_eq!(
            shown,
            [
                (220, None, "mx ESMTP".to_owned()),
                (250, None, "mx|SIZE 10|STARTTLS".to_owned()),
                (550, Some((5, 1, 1)), "no|user".to_owned()),
                (250, None, String::new()),
                (354, None, "5.1.1 go".to_owned()),
                (550, None, "5.1.01 x".to_owned()),
            ]
        );
    }
}

#[test]
fn garbage_is_a_fault() {
    let rows: [(&[u8], ReplyFault); 12] = [
        (b"hello\r\n", ReplyFault::NoCode),
        (b"\r\n", ReplyFault::NoCode),
        (b"25\r\n", ReplyFault::NoCode),
        (b"2500 x\r\n", ReplyFault::NoCode),
        (b"650 x\r\n", ReplyFault::NoCode),
        (b"190 x\r\n", ReplyFault::NoCode),
        (b"560 x\r\n", ReplyFault::NoCode),
        (b"250_x\r\n", ReplyFault::NoCode),
        (b"250-a\r\n251 b\r\n", ReplyFault::CodesDiffer),
        (b"250 a\n", ReplyFault::BadByte),
        (b"250 a\rb\r\n", ReplyFault::BadByte),
        (b"250 a\0\r\n", ReplyFault::BadByte),
    ];
    for (input, wanted) in rows {
        for size in [1, input.len()] {
            assert_eq!(parse(input, size).1, Some(wanted), "{}", input.escape_ascii());
        }
    }
}

#[test]
fn an_endless_reply_hits_a_bound() {
    for size in [1, 7, 4096] {
        assert_eq!(parse(&b"250 ".repeat(1000), size).1, Some(ReplyFault::LineTooLong));
        assert_eq!(parse(&b"250-\r\n".repeat(101), size).1, Some(ReplyFault::TooLong));
        let long = format!("250-{}\r\n", "x".repeat(1000));
        assert_eq!(parse(long.repeat(20).as_bytes(), size).1, Some(ReplyFault::TooLong));
    }
}

#[test]
fn a_line_makes_a_reply() {
    assert_eq!(Reply::from_line("450 4.2.0 later"), Reply::new(450, (4, 2, 0), "later"));
    assert_eq!(Reply::from_line("354 go"), Reply::plain(354, "go"));
    assert_eq!(Reply::from_line("what"), Reply::plain(451, "what"));
}

proptest! {
    #[test]
    fn a_reply_reads_back_as_it_was_written(
        class in 2u16..=5, rest in 0u16..=59,
        enhanced in proptest::option::of((0u16..1000, 0u16..1000)),
        lines in proptest::collection::vec("[a-zA-Z][ -~]{0,80}", 1..6),
        size in 1usize..40,
    ) {
        let enhanced = enhanced.filter(|_| class != 3).map(|(subject, detail)| (class as u8, subject, detail));
        let reply = Reply { code: class * 100 + rest, enhanced, lines };
        prop_assert_eq!(parse(written(&reply).as_bytes(), size), (vec![reply], None));
    }

    #[test]
    fn pieces_make_no_difference_and_nothing_panics(
        input in proptest::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'), Just(b'-'), Just(b' '), Just(b'.'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60),
    ) {
        prop_assert_eq!(parse(&input, 1), parse(&input, input.len()));
    }
}
