use proptest::prelude::*;

use super::*;

fn parse(line: &str) -> Result<Command<'_>, Violation> {
    Command::parse(line.as_bytes()).1
}

fn mail_of(line: &str) -> (String, Option<u64>, bool) {
    match parse(line) {
        Ok(Command::Mail(mail)) => (mail.sender.as_str().to_owned(), mail.size, mail.eight_bit),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn commands_are_read_in_any_case_and_with_blanks_at_the_end() {
    assert_eq!(parse("ehlo a.example \t"), Ok(Command::Ehlo("a.example")));
    assert_eq!(parse("HeLo [192.0.2.1]"), Ok(Command::Helo("[192.0.2.1]")));
    assert_eq!(parse("data "), Ok(Command::Data));
    assert_eq!(parse("RSET"), Ok(Command::Rset));
    assert_eq!(parse("NOOP whatever \u{e9}"), Ok(Command::Noop));
    assert_eq!(parse("help me"), Ok(Command::Help));
    assert_eq!(parse("VRFY somebody"), Ok(Command::Vrfy));
    assert_eq!(parse("quit"), Ok(Command::Quit));
    assert_eq!(parse("StartTLS"), Ok(Command::StartTls));
    assert_eq!(parse("bdat 007 "), Ok(Command::Bdat(Chunk { size: 7, last: false })));
    assert_eq!(parse("BDAT 0  Last"), Ok(Command::Bdat(Chunk { size: 0, last: true })));
    let most = Chunk { size: u64::MAX, last: false };
    assert_eq!(parse("BDAT 99999999999999999999"), Ok(Command::Bdat(most)));
}

#[test]
fn mail_has_its_parameters() {
    assert_eq!(mail_of("MAIL FROM:<>"), (String::new(), None, false));
    assert_eq!(mail_of("mail from: <a@b>  size=007 body=8bitmime "), ("a@b".to_owned(), Some(7), true));
    assert_eq!(mail_of("MAIL FROM:<a@b> BODY=7BIT"), ("a@b".to_owned(), None, false));
    assert_eq!(mail_of("MAIL FROM:<a@b> SIZE=99999999999999999999").1, Some(u64::MAX));
    assert!(matches!(parse("MAIL FROM:<\u{e9}@b> smtputf8"), Ok(Command::Mail(mail)) if mail.smtputf8));
    assert!(matches!(parse("MAIL FROM:<>"), Ok(Command::Mail(mail)) if !mail.smtputf8));
    assert!(matches!(parse("RCPT TO: <a@b>"), Ok(Command::Rcpt(ForwardPath::Mailbox(_)))));
    assert!(matches!(parse("RCPT TO:<Postmaster>"), Ok(Command::Rcpt(ForwardPath::Postmaster(_)))));
}

#[test]
fn every_mistake_has_its_reply() {
    let rows = [
        ("EHLO", Violation::Argument),
        ("EHLO a b", Violation::Argument),
        ("EHLO \u{e9}", Violation::Argument),
        ("HELO", Violation::Argument),
        ("DATA x", Violation::Argument),
        ("RSET x", Violation::Argument),
        ("QUIT x", Violation::Argument),
        ("STARTTLS foo", Violation::Argument),
        ("VRFY", Violation::Argument),
        ("EXPN list", Violation::NotImplemented),
        ("", Violation::UnknownCommand),
        (" NOOP", Violation::UnknownCommand),
        ("AUTH PLAIN", Violation::UnknownCommand),
        ("UNKNOWN", Violation::UnknownCommand),
        ("MAILFROM:<a@b>", Violation::UnknownCommand),
        ("MAIL", Violation::Argument),
        ("MAIL  FROM:<a@b>", Violation::Argument),
        ("MAIL TO:<a@b>", Violation::Argument),
        ("MAIL FROM <a@b>", Violation::Argument),
        ("MAIL FROM:", Violation::SenderSyntax),
        ("MAIL FROM:a@b", Violation::SenderSyntax),
        ("MAIL FROM:<a>", Violation::SenderSyntax),
        ("MAIL FROM:<a@b>SIZE=3", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b>>", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> SIZE", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> SIZE=", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> SIZE=-1", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> SIZE=999999999999999999999", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> SIZE=1 SIZE=1", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> BODY=BINARYMIME", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> =x", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> AUTH=<>", Violation::UnknownParameter),
        ("MAIL FROM:<a@b> SMTPUTF8=", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> SMTPUTF8=1", Violation::ParameterSyntax),
        ("MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8", Violation::ParameterSyntax),
        ("MAIL FROM:<a\u{80}@b> SMTPUTF8", Violation::SenderNotAscii),
        ("MAIL FROM:<a@b> RET=HDRS", Violation::UnknownParameter),
        ("MAIL FROM:<\u{e9}@b>", Violation::SenderNotAscii),
        ("RCPT TO:<>", Violation::RecipientSyntax),
        ("RCPT TO:a@b", Violation::RecipientSyntax),
        ("RCPT TO:<a@b.>", Violation::RecipientSyntax),
        ("RCPT TO:<a@b> NOTIFY=NEVER", Violation::UnknownParameter),
        ("RCPT TO:<a@b>NOTIFY=NEVER", Violation::ParameterSyntax),
        ("RCPT FROM:<a@b>", Violation::Argument),
        ("RCPT TO:<a\u{9f}@b>", Violation::RecipientNotAscii),
        ("BDAT", Violation::ChunkSyntax),
        ("BDAT LAST", Violation::ChunkSyntax),
        ("BDAT -1", Violation::ChunkSyntax),
        ("BDAT +1", Violation::ChunkSyntax),
        ("BDAT 0x10", Violation::ChunkSyntax),
        ("BDAT 1 LASTLY", Violation::ChunkSyntax),
        ("BDAT 1 LAST LAST", Violation::ChunkSyntax),
        ("BDAT 999999999999999999999", Violation::ChunkSyntax),
        ("BDAT 1\rLAST", Violation::ChunkSyntax),
        ("BDAT 1 \0", Violation::ChunkSyntax),
        ("NOOP\rQUIT", Violation::BareLineEnd),
        ("NO\rOP", Violation::BareLineEnd),
        ("NOOP \0", Violation::ControlCharacter),
        ("MAIL\tFROM:<a@b>", Violation::ControlCharacter),
        ("MAIL FROM:<a@b>\u{7f}", Violation::ControlCharacter),
    ];
    for (line, wanted) in rows {
        assert_eq!(parse(line), Err(wanted), "{line:?}");
    }
    assert_eq!(parse(&format!("EHLO {}", "a".repeat(256))), Err(Violation::Argument));
}

#[test]
fn a_line_of_http_is_known() {
    assert!(is_http(b"GET / HTTP/1.1"));
    assert!(is_http(b"POST / HTTP/1.1"));
    assert!(!is_http(b"NOOP GET / HTTP/1.1"));
}

proptest! {
    #[test]
    fn no_line_makes_the_parser_panic(line: Vec<u8>) {
        let _ = Command::parse(&line);
    }

    #[test]
    fn no_line_like_mail_makes_the_parser_panic(line in "(MAIL FROM|RCPT TO):[ <>a@.\"\\\\\\[\\]:=,A-Z0-9\r\n\u{e9}]{0,40}") {
        let _ = Command::parse(line.as_bytes());
    }
}
