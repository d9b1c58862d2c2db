use proptest::prelude::*;

use super::*;

fn forward(text: &str) -> Result<(String, String), InvalidPath> {
    ForwardPath::parse(text.as_bytes())
        .map(|(path, rest)| (path.as_str().to_owned(), String::from_utf8(rest.to_vec()).unwrap()))
}

#[test]
fn a_path_is_kept_as_it_was_written() {
    let rows = [
        ("<a@b>", "a@b", ""),
        ("<A.B+c@Example.ORG> SIZE=1", "A.B+c@Example.ORG", " SIZE=1"),
        ("<\"a b\"@x.org>", "\"a b\"@x.org", ""),
        ("<\"a\\\"b\\\\@c>\"@x.org>", "\"a\\\"b\\\\@c>\"@x.org", ""),
        ("<\"\"@x.org>", "\"\"@x.org", ""),
        ("<@a,@b.c:user@x.org>", "user@x.org", ""),
        ("<u@[127.0.0.1]>", "u@[127.0.0.1]", ""),
        ("<u@[IPv6:2001:db8::1]>", "u@[IPv6:2001:db8::1]", ""),
        ("<u@[ipv6:::ffff:192.0.2.1]>", "u@[ipv6:::ffff:192.0.2.1]", ""),
        ("<Postmaster>", "Postmaster", ""),
        ("<pOSTMASTER>x", "pOSTMASTER", "x"),
        ("<postmaster@x>", "postmaster@x", ""),
        ("<a..b@x>", "a..b@x", ""),
        ("<.a.@x>", ".a.@x", ""),
        ("<a%b!c@x>", "a%b!c@x", ""),
        ("<a@123.45>", "a@123.45", ""),
        ("<a@_dmarc.x-y.org>", "a@_dmarc.x-y.org", ""),
        ("<caf\u{e9}@b>", "caf\u{e9}@b", ""),
        ("<\"caf\u{e9} \"@b>", "\"caf\u{e9} \"@b", ""),
        ("<a@b\u{fc}cher.example>", "a@b\u{fc}cher.example", ""),
        (
            "<\u{7528}\u{6237}@\u{4f8b}\u{5b50}.\u{6d4b}\u{8bd5}>x",
            "\u{7528}\u{6237}@\u{4f8b}\u{5b50}.\u{6d4b}\u{8bd5}",
            "x",
        ),
    ];
    for (text, path, rest) in rows {
        assert_eq!(forward(text), Ok((path.to_owned(), rest.to_owned())), "{text}");
    }
}

#[test]
fn what_is_no_path_is_refused() {
    use InvalidPath::{NotAscii, Syntax, TooLong};
    let rows = [
        ("", Syntax),
        ("<>", Syntax),
        ("a@b", Syntax),
        ("<a@b", Syntax),
        ("<a>", Syntax),
        ("<@b>", Syntax),
        ("<a@>", Syntax),
        ("<a b@c>", Syntax),
        ("<a@b@c>", Syntax),
        ("<a@b.>", Syntax),
        ("<a@.b>", Syntax),
        ("<a@b..c>", Syntax),
        ("<a@-b>", Syntax),
        ("<a@b->", Syntax),
        ("<a@b c>", Syntax),
        ("<a@[1.2.3]>", Syntax),
        ("<a@[01.2.3.4]>", Syntax),
        ("<a@[IPv6:1.2.3.4]>", Syntax),
        ("<a@[2001:db8::1]>", Syntax),
        ("<a@[127.0.0.1>", Syntax),
        ("<a@[x:y]>", Syntax),
        ("<\"a@b>", Syntax),
        ("<\"a\"b@c>", Syntax),
        ("<\"a\\\u{7f}\"@c>", Syntax),
        ("<\"a\tb\"@c>", Syntax),
        ("<@a:>", Syntax),
        ("<@a,b:c@d>", Syntax),
        ("<@a c@d>", Syntax),
        ("<a,b@c>", Syntax),
        ("<<a@b>>", Syntax),
        ("<caf\u{85}@b>", NotAscii),
        ("<\"caf\u{80}\"@b>", NotAscii),
        ("<a@b\u{9f}cher.example>", NotAscii),
        ("<\"\\\u{e9}\"@b>", Syntax),
        ("<a@\u{e9}.>", Syntax),
    ];
    for (text, wanted) in rows {
        assert_eq!(forward(text), Err(wanted), "{text}");
    }
    // Latin-1, an overlong form, half a letter, a surrogate.
    for bytes in [&b"<caf\xe9@b>"[..], b"<\xc0\xaf@b>", b"<a@b\xc3>", b"<\"\xed\xa0\x80\"@b>"] {
        assert_eq!(
            ForwardPath::parse(bytes).unwrap_err(),
            NotAscii,
            "{:?}",
            bytes.escape_ascii().to_string()
        );
    }
    // A U-label may be longer than 63 octets, the whole domain not longer than 255.
    let long = "\u{4f8b}".repeat(40);
    assert!(forward(&format!("<a@{long}.example>")).is_ok());
    assert_eq!(forward(&format!("<a@{long}.{long}.{long}>")), Err(TooLong));
    // Mailing services go beyond the 64 octets of RFC 5321; 1000 with brackets are the most.
    assert!(forward(&format!("<{}@b>", "a".repeat(996))).is_ok());
    assert_eq!(forward(&format!("<{}@b>", "a".repeat(997))), Err(TooLong));
    assert_eq!(forward(&format!("<a@{}>", "b".repeat(64))), Err(TooLong));
    let domain = vec!["b".repeat(63); 4].join(".");
    assert!(forward(&format!("<a@{domain}>")).is_ok());
    assert_eq!(forward(&format!("<a@{domain}.b>")), Err(TooLong));
}

#[test]
fn the_null_sender_is_a_sender_only() {
    assert_eq!(ReversePath::parse(b"<> SIZE=1"), Ok((ReversePath::Null, &b" SIZE=1"[..])));
    assert_eq!(ForwardPath::parse(b"<>"), Err(InvalidPath::Syntax));
    assert_eq!(ReversePath::parse(b"<Postmaster>"), Err(InvalidPath::Syntax));
}

#[test]
fn a_path_has_a_local_part_and_a_domain() {
    let path = Path::parse(b"\"a@b\"@[192.0.2.1]").unwrap();
    assert_eq!((path.local(), path.domain()), ("\"a@b\"", "[192.0.2.1]"));
}

proptest! {
    #[test]
    fn a_path_reads_back_as_it_was_written(
        local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.\u{a0}-\u{2ff}-]{1,64}|\"([ !#-\\[\\]-~\u{a0}-\u{ffff}]|\\\\[ -~]){0,20}\"",
        domain in "[a-z0-9_]([a-z0-9\u{e0}-\u{24f}-]{0,10}[a-z0-9])?(\\.[A-Z0-9]{1,9}){0,4}|\\[192\\.0\\.2\\.[1-9]\\]",
        route in "(@a\\.b,@c:)?",
    ) {
        let mailbox = format!("{local}@{domain}");
        let text = format!("<{route}{mailbox}> rest");
        let (path, rest) = ReversePath::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(rest, b" rest");
        prop_assert_eq!(path.as_str(), &mailbox);
        let path = path.path().unwrap();
        prop_assert_eq!(path.local(), &local);
        prop_assert_eq!(path.domain(), &domain);
        prop_assert_eq!(&Path::parse(path.as_bytes()).unwrap(), path);
    }

    #[test]
    fn whatever_parses_is_clean_and_parses_again(text in "<[a@.\"\\\\<>:,\\[\\] \r\n\u{85}\u{e9}0-9]{0,20}>?") {
        if let Ok((path, _)) = ForwardPath::parse(text.as_bytes()) {
            prop_assert!(!path.as_str().chars().any(char::is_control));
            let again = format!("<{}>", path.as_str());
            prop_assert_eq!(ForwardPath::parse(again.as_bytes()), Ok((path, &b""[..])));
        }
    }
}
