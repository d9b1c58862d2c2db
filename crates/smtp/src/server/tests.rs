//! What transcripts can't show: sizes, clocks, counters. The dialogues are in `tests/transcripts/`.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn mk_session(limits: Limits) -> (Session, Instant) {
    let config = SessionConfig { hostname: "mx.test".into(), limits, bare_newline: BareNewline::Reject };
    #[allow(clippy::disallowed_methods)] // an origin for times, nothing else
    let now = Instant::now();
    let mut session = Session::new(Arc::new(config), now);
    session.greet(TlsOffer::Offered);
    session.output().clear();
    (session, now)
}

fn feed(session: &mut Session, now: Instant, input: &str) -> Option<Event> {
    let (taken, event) = session.receive(now, input.as_bytes(), &mut Vec::new());
    assert_eq!(taken, input.len(), "{input:?}");
    event
}

fn output(session: &mut Session) -> String {
    String::from_utf8(std::mem::take(session.output())).unwrap()
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 256, "{}", size_of::<Session>());
}

#[test]
fn an_idle_session_holds_no_memory_but_its_helo_name() {
    let (mut session, now) = mk_session(Limits::default());
    feed(&mut session, now, "EHLO a\r\nNOOP\r\n");
    drop(std::mem::take(session.output()));
    assert_eq!(session.output.capacity(), 0);
    assert!(session.transaction.is_none());
    assert!(matches!(session.state, State::Command));
}

#[test]
fn a_part_of_a_command_is_not_taken() {
    let (mut session, now) = mk_session(Limits::default());
    assert_eq!(session.receive(now, b"NOOP\r\nEHLO a", &mut Vec::new()), (6, None));
    assert_eq!(session.receive(now, b"EHLO a\r\n", &mut Vec::new()), (8, None));
    assert_eq!(session.helo(), Some("a"));
}

#[test]
fn a_drip_of_bytes_does_not_keep_a_session_alive() {
    let (mut session, now) = mk_session(Limits::default());
    let deadline = session.deadline();
    session.receive(now + Duration::from_secs(200), b"NOO", &mut Vec::new());
    assert_eq!(session.deadline(), deadline);
    assert_eq!(deadline, now + Duration::from_secs(300));
    assert_eq!(session.handle_timeout(deadline), Event::Close);
    assert_eq!(output(&mut session), "421 4.4.2 timed out waiting for the client\r\n");
    assert_eq!(session.close_reason(), Some(CloseReason::Violation(Violation::Idle)));
}

#[test]
fn an_old_session_ends_between_transactions() {
    let (mut session, now) = mk_session(Limits::default());
    let hour = Duration::from_secs(3600);
    let almost = now + hour - Duration::from_secs(1);
    assert_eq!(feed(&mut session, almost, "EHLO a\r\nMAIL FROM:<>\r\n"), None);
    assert_eq!(session.deadline(), almost + Duration::from_secs(300));
    assert_eq!(feed(&mut session, now + hour, "NOOP\r\n"), None);
    assert_eq!(feed(&mut session, now + hour, "RSET\r\n"), Some(Event::Reset));
    output(&mut session);
    assert_eq!(session.receive(now + hour, b"", &mut Vec::new()), (0, Some(Event::Close)));
    assert_eq!(output(&mut session), "421 4.3.2 session too long, connect again\r\n");
}

#[test]
fn an_old_session_hears_of_it_at_its_deadline() {
    let (mut session, now) = mk_session(Limits { session_age: Duration::from_secs(60), ..Limits::default() });
    assert_eq!(session.deadline(), now + Duration::from_secs(60));
    session.handle_timeout(session.deadline());
    assert_eq!(session.close_reason(), Some(CloseReason::Violation(Violation::SessionTooOld)));
}

fn mk_message(limits: Limits) -> (Session, Instant) {
    let (mut session, now) = mk_session(limits);
    let event = feed(&mut session, now, "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\n");
    assert!(matches!(event, Some(Event::Recipients(_))));
    session.answer_recipients(now, vec![Reply::new(250, (2, 1, 5), "OK")]);
    assert_eq!(feed(&mut session, now, "DATA\r\n"), Some(Event::Data));
    session.start_data(now);
    output(&mut session);
    (session, now)
}

#[test]
fn the_idle_clock_of_data_starts_again_with_each_piece_and_the_message_has_an_end() {
    let (mut session, now) = mk_message(Limits::default());
    assert_eq!(session.deadline(), now + Duration::from_secs(180));
    let later = now + Duration::from_secs(100);
    assert_eq!(feed(&mut session, later, "a"), Some(Event::Body));
    assert_eq!(session.deadline(), later + Duration::from_secs(180));
    let end = now + Duration::from_secs(3600);
    assert_eq!(feed(&mut session, end - Duration::from_secs(1), "a"), Some(Event::Body));
    assert_eq!(session.deadline(), end);
    session.handle_timeout(end);
    assert_eq!(output(&mut session), "421 4.4.2 timed out waiting for the client\r\n");
}

#[test]
fn the_time_that_the_upstream_took_is_not_the_client_s() {
    let (mut session, now) = mk_message(Limits::default());
    assert_eq!(feed(&mut session, now, "a"), Some(Event::Body));
    let later = now + Duration::from_secs(170);
    session.wait_for_message(later);
    assert_eq!(session.deadline(), later + Duration::from_secs(180));
}

#[test]
fn a_spoiled_message_is_waited_for_a_minute_only() {
    let (mut session, now) = mk_message(Limits::default());
    assert_eq!(feed(&mut session, now, "a\0"), Some(Event::MessageSpoiled(Violation::NulByte)));
    assert_eq!(session.deadline(), now + Duration::from_secs(60));
}

#[test]
fn a_421_inside_a_transaction_carries_its_label() {
    let (mut session, now) = mk_session(Limits { errors: 1, ..Limits::default() });
    feed(&mut session, now, "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\nRCPT TO:<b@c>\r\nRCPT TO:<b@c>\r\n");
    session.label_transaction("id 7");
    output(&mut session);
    let refusal = Reply::new(550, (5, 1, 1), "no");
    assert_eq!(session.answer_recipients(now, vec![refusal; 3]), 1);
    assert_eq!(output(&mut session), "550 5.1.1 no\r\n421 4.7.0 too many errors (id 7)\r\n");

    let (mut session, now) = mk_message(Limits::default());
    session.label_transaction("id 8");
    session.handle_timeout(now);
    assert_eq!(output(&mut session), "421 4.4.2 timed out waiting for the client (id 8)\r\n");

    let (mut session, now) = mk_session(Limits::default());
    feed(&mut session, now, "EHLO a\r\nMAIL FROM:<>\r\n");
    session.label_transaction("id 9");
    output(&mut session);
    feed(&mut session, now, "QUIT\r\n");
    assert_eq!(output(&mut session), "221 2.0.0 bye\r\n");
}

#[test]
fn the_clients_clock_does_not_run_while_an_answer_is_owed_to_it() {
    let (mut session, now) = mk_message(Limits::default());
    assert!(matches!(
        feed(&mut session, now, ".\r\n"),
        Some(Event::EndOfMessage { result: Ok(()), size: 0 })
    ));
    let answered = now + Duration::from_secs(480);
    assert!(session.deadline() > answered);
    session.finish_message(answered, &Reply::new(250, (2, 0, 0), "OK"));
    assert_eq!(session.deadline(), answered + Duration::from_secs(300));
}

#[test]
fn shutting_down_waits_for_the_transaction() {
    let (mut session, now) = mk_message(Limits::default());
    assert!(!session.shut_down());
    assert!(matches!(
        feed(&mut session, now, "a\r\n.\r\n"),
        Some(Event::EndOfMessage { result: Ok(()), size: 3 })
    ));
    session.finish_message(now, &Reply::new(250, (2, 0, 0), "OK"));
    assert_eq!(session.receive(now, b"MAIL FROM:<>\r\n", &mut Vec::new()), (0, Some(Event::Close)));
    assert_eq!(output(&mut session), "250 2.0.0 OK\r\n421 4.3.2 going down, connect again\r\n");
    assert_eq!(session.close_reason(), Some(CloseReason::ShutDown));
}

#[test]
fn shutting_down_an_idle_session_is_immediate() {
    let (mut session, _) = mk_session(Limits::default());
    assert!(session.shut_down());
    assert_eq!(output(&mut session), "421 4.3.2 going down, connect again\r\n");
}

#[test]
fn commands_are_counted_by_verb_and_class() {
    let (mut session, now) = mk_session(Limits::default());
    feed(
        &mut session,
        now,
        "EHLO a\r\nNOOP\r\nNOOP\r\nFOO\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@b>\r\n",
    );
    session
        .answer_recipients(now, vec![Reply::new(250, (2, 1, 5), "OK"), Reply::new(450, (4, 2, 0), "later")]);
    feed(&mut session, now, "DATA\r\n");
    session.start_data(now);
    feed(&mut session, now, ".\r\n");
    session.finish_message(now, &Reply::new(250, (2, 0, 0), "OK"));
    let counts: Vec<_> = session.take_commands().iter().collect();
    assert_eq!(
        counts,
        [
            (Verb::Ehlo, 2, 1),
            (Verb::Mail, 2, 1),
            (Verb::Rcpt, 2, 1),
            (Verb::Rcpt, 4, 1),
            (Verb::Data, 2, 1),
            (Verb::Data, 3, 1),
            (Verb::Noop, 2, 2),
            (Verb::Unknown, 5, 1),
        ]
    );
    assert_eq!(session.take_commands().iter().count(), 0);
}

#[test]
fn much_output_is_flushed_before_more_is_made() {
    let (mut session, now) = mk_session(Limits { idle_commands: u32::MAX, ..Limits::default() });
    let input = "EHLO a\r\n".repeat(1000);
    let mut rest = input.as_bytes();
    let mut replies = 0;
    loop {
        let (taken, event) = session.receive(now, rest, &mut Vec::new());
        rest = &rest[taken..];
        assert!(session.output().len() < limits::OUTPUT_FLUSH + 512);
        replies += output(&mut session).matches("250 STARTTLS\r\n").count();
        match event {
            Some(Event::Flush) => {}
            other => {
                assert_eq!(other, None);
                break;
            }
        }
    }
    assert_eq!((replies, rest.len()), (1000, 0));
}

#[test]
fn ten_thousand_refused_recipients_end_at_the_error_limit() {
    let (mut session, now) = mk_session(Limits::default());
    feed(&mut session, now, "EHLO a\r\nMAIL FROM:<>\r\n");
    output(&mut session);
    let input = "RCPT TO:<a@b>\r\n".repeat(10_000);
    let mut rest = input.as_bytes();
    let mut asked = 0;
    loop {
        let (taken, event) = session.receive(now, rest, &mut Vec::new());
        rest = &rest[taken..];
        match event {
            Some(Event::Recipients(batch)) => {
                assert!(batch.len() <= 100);
                asked += batch.len();
                session.answer_recipients(now, vec![Reply::new(550, (5, 1, 1), "no"); batch.len()]);
            }
            other => {
                assert_eq!(other, Some(Event::Close));
                break;
            }
        }
    }
    assert_eq!(asked, 100);
    let output = output(&mut session);
    assert_eq!(output.matches("550 5.1.1 no\r\n").count(), 20);
    assert!(output.ends_with("421 4.7.0 too many errors\r\n"));
}

#[test]
fn an_endless_message_ends() {
    let (mut session, now) = mk_message(Limits { message_size: 10, ..Limits::default() });
    let mut body = Vec::new();
    let mut events = Vec::new();
    let mut sent = 0;
    while !events.contains(&Event::Close) {
        let (taken, event) = session.receive(now, &[b'a'; 1000], &mut body);
        sent += taken;
        events.extend(event);
        assert!(sent <= 64 * 1024 && body.len() <= 10);
    }
    assert_eq!(events, [Event::MessageSpoiled(Violation::MessageTooLarge), Event::Close]);
    assert_eq!(output(&mut session), "421 4.3.4 endless message\r\n");
}

/// An accepted BDAT, with the chunk's octets still to come.
fn mk_chunk(limits: Limits, command: &str) -> (Session, Instant) {
    let (mut session, now) = mk_session(limits);
    feed(&mut session, now, "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\n");
    session.answer_recipients(now, vec![Reply::new(250, (2, 1, 5), "OK")]);
    assert_eq!(feed(&mut session, now, command), Some(Event::Data));
    session.start_data(now);
    let said = output(&mut session);
    assert!(!said.contains("354"), "{said}");
    (session, now)
}

#[test]
fn a_chunk_is_answered_after_its_octets_were_passed_on() {
    let (mut session, now) = mk_chunk(Limits::default(), "BDAT 4\r\n");
    let mut body = Vec::new();
    let later = now + Duration::from_secs(100);
    assert_eq!(session.receive(now, b"a\r\nbBDAT 1 LAST\r\nc", &mut body), (4, Some(Event::Body)));
    assert_eq!((body.as_slice(), output(&mut session).as_str()), (&b"a\r\nb"[..], ""));
    body.clear();
    assert_eq!(session.receive(later, b"", &mut body), (0, None));
    assert_eq!(output(&mut session), "250 2.0.0 chunk OK\r\n");
    assert!(session.is_between_chunks());
    // what came before it, the upstream had to take
    assert_eq!(session.deadline(), later + Duration::from_secs(180));
    assert_eq!(session.receive(later, b"BDAT 1 LAST\r\nc", &mut body), (14, Some(Event::Body)));
    assert_eq!(
        session.receive(later, b"", &mut body),
        (0, Some(Event::EndOfMessage { result: Ok(()), size: 7 }))
    );
    assert_eq!(body, b"c\r\n");
    session.finish_message(later, &Reply::new(250, (2, 0, 0), "OK"));
    let counts: Vec<_> =
        session.take_commands().iter().filter(|(verb, ..)| matches!(verb, Verb::Bdat | Verb::Data)).collect();
    assert_eq!(counts, [(Verb::Bdat, 2, 2)]);
}

#[test]
fn a_message_in_chunks_has_the_clock_of_a_message() {
    let (mut session, now) = mk_chunk(Limits::default(), "BDAT 2\r\n");
    assert_eq!(session.deadline(), now + Duration::from_secs(180));
    assert_eq!(feed(&mut session, now, "ab"), Some(Event::Body));
    assert_eq!(feed(&mut session, now, ""), None);
    let drip = now + Duration::from_secs(100);
    session.wait_for_message(drip);
    session.receive(drip, b"BDA", &mut Vec::new());
    assert_eq!(session.deadline(), now + Duration::from_secs(180), "part of a command is nothing yet");
    let end = now + Duration::from_secs(3600);
    session.receive(end - Duration::from_secs(1), b"BDAT 0\r\n", &mut Vec::new());
    assert_eq!(session.deadline(), end);
    assert!(!session.shut_down());
    assert_eq!(session.handle_timeout(end), Event::Close);
    assert_eq!(session.close_reason(), Some(CloseReason::Violation(Violation::Idle)));
}

#[test]
fn a_message_in_chunks_may_outlast_the_age_of_its_session() {
    let (mut session, now) = mk_session(Limits::default());
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    // The session is about to be too old when its message begins.
    let begun = now + hour - minute;
    feed(&mut session, begun, "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\n");
    session.answer_recipients(begun, vec![Reply::new(250, (2, 1, 5), "OK")]);
    let begun = now + 2 * hour - minute;
    assert_eq!(feed(&mut session, begun, "BDAT 1\r\n"), Some(Event::Data));
    session.start_data(begun);
    assert_eq!(feed(&mut session, begun, "a"), Some(Event::Body));
    assert_eq!(feed(&mut session, begun, ""), None);
    let later = now + 2 * hour + minute;
    session.wait_for_message(later);
    output(&mut session);
    assert_eq!(feed(&mut session, later, "BDAT 1 LAST\r\nb"), Some(Event::Body));
    assert!(session.close_reason().is_none(), "{}", output(&mut session));
}

/// RFC 3030 wants a blank. What some other reader takes for a chunk must not be obeyed here.
#[test]
fn what_looks_like_a_chunk_and_is_none_ends_the_session() {
    for line in ["BDAT\t30 LAST\r\n", "bdat\u{b}30\r\n", "BDAT:30\r\n", "BDAT30\r\n"] {
        let (mut session, now) = mk_session(Limits::default());
        feed(&mut session, now, "EHLO a\r\n");
        output(&mut session);
        let input = format!("{line}MAIL FROM:<a@b>\r\n");
        let (taken, event) = session.receive(now, input.as_bytes(), &mut Vec::new());
        assert_eq!((taken, event), (line.len(), Some(Event::Close)), "{line:?}");
        assert!(output(&mut session).starts_with("421 "), "{line:?}");
    }
}

#[test]
fn an_announced_size_takes_no_memory_and_has_an_end() {
    let limits = Limits { message_size: 10, ..Limits::default() };
    let (mut session, now) = mk_chunk(limits.clone(), "BDAT 18446744073709551615 LAST\r\n");
    let (mut body, mut events, mut sent) = (Vec::new(), Vec::new(), 0);
    while !events.contains(&Event::Close) {
        let (taken, event) = session.receive(now, &[b'a'; 1000], &mut body);
        sent += taken;
        events.extend(event);
        assert!(sent <= 64 * 1024 && body.capacity() <= 2048);
    }
    assert_eq!(events, [Event::MessageSpoiled(Violation::MessageTooLarge), Event::Close]);

    let (mut session, now) = mk_session(limits.clone());
    assert_eq!(feed(&mut session, now, "BDAT 65536 LAST\r\n"), None);
    assert_eq!(session.deadline(), now + Duration::from_secs(60), "as for a spoiled message");
    assert_eq!(feed(&mut session, now, &"QUIT\r\n!!".repeat(8192)), None);
    assert_eq!(output(&mut session), "503 5.5.1 send MAIL first\r\n");
    let (taken, event) = session.receive(now, b"BDAT 65537 LAST\r\n", &mut body);
    assert_eq!((taken, event), (17, Some(Event::Close)));
    assert_eq!(session.close_reason(), Some(CloseReason::Violation(Violation::EndlessMessage)));

    let (mut session, now) = mk_session(limits);
    feed(&mut session, now, "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\n");
    session.answer_recipients(now, vec![Reply::new(250, (2, 1, 5), "OK")]);
    assert_eq!(feed(&mut session, now, "BDAT 70000\r\n"), Some(Event::Data));
    session.refuse_data(now, &Reply::new(450, (4, 2, 0), "later"));
    output(&mut session);
    assert_eq!(session.receive(now, b"a", &mut body), (0, Some(Event::Close)));
    assert_eq!(output(&mut session), "421 4.3.4 endless message\r\n");
}

#[test]
fn what_is_forgiven_behind_a_failed_chunk_is_bounded() {
    let limits = Limits { errors: 3, message_size: 0, ..Limits::default() };
    let (mut session, now) = mk_session(limits);
    feed(&mut session, now, "EHLO a\r\n");
    // 64 KiB are forgiven behind each error, and an empty chunk takes one of them
    let (mut answered, mut closed) = (0, false);
    for _ in 0..1000 {
        let (_, event) = session.receive(now, b"BDAT 0\r\n", &mut Vec::new());
        answered += output(&mut session).matches("503 ").count();
        closed |= event == Some(Event::Close);
    }
    assert!(closed);
    assert_eq!(answered, 3 * 65);
}

#[test]
fn a_chunk_that_was_refused_is_read_before_a_shutdown() {
    let (mut session, now) = mk_session(Limits::default());
    feed(&mut session, now, "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\n");
    session.answer_recipients(now, vec![Reply::new(250, (2, 1, 5), "OK")]);
    assert_eq!(feed(&mut session, now, "BDAT 6 LAST\r\n"), Some(Event::Data));
    session.refuse_data(now, &Reply::new(450, (4, 2, 0), "later"));
    output(&mut session);
    assert!(!session.shut_down());
    assert_eq!(session.receive(now, b"QUIT", &mut Vec::new()), (4, None));
    assert_eq!(session.receive(now, b"\r\nMAIL FROM:<>\r\n", &mut Vec::new()), (2, Some(Event::Close)));
    assert_eq!(output(&mut session), "450 4.2.0 later\r\n421 4.3.2 going down, connect again\r\n");
}

#[test]
fn a_spoiled_message_is_told_at_once_and_answered_at_its_dot() {
    let (mut session, now) = mk_message(Limits::default());
    let mut body = Vec::new();
    let (taken, event) = session.receive(now, b"a: b\r\n\r\nx\ny\r\n.\r\nNOOP\r\n", &mut body);
    assert_eq!((taken, event), (10, Some(Event::MessageSpoiled(Violation::BareNewline))));
    let rest = b"y\r\n.\r\nNOOP\r\n";
    let (taken, event) = session.receive(now, rest, &mut body);
    assert_eq!(taken, 6);
    assert_eq!(event, Some(Event::EndOfMessage { result: Err(Violation::BareNewline), size: 13 }));
    assert!(body.is_empty());
}

proptest! {
    #[test]
    fn no_client_and_no_driver_makes_a_session_panic(input in proptest::collection::vec(any::<u8>(), 0..400)) {
        crate::fuzz::session(&input);
    }

    #[test]
    fn pieces_make_no_difference_to_a_dialogue(
        words in proptest::collection::vec(
            prop_oneof![
                Just("EHLO a\r\n"), Just("MAIL FROM:<a@b>\r\n"), Just("RCPT TO:<c@d>\r\n"), Just("RCPT TO:<no@d>\r\n"),
                Just("RCPT TO:<bad>\r\n"), Just("DATA\r\n"), Just("a: b\r\n"), Just("\r\n"), Just(".\r\n"), Just("\n"),
                Just("\r"), Just("."), Just("NOOP\r\n"), Just("RSET\r\n"), Just("BDAT 4\r\n"), Just("BDAT 4 LAST\r\n"),
                Just("BDAT 0 LAST\r\n"), Just("BDAT 20\r\n"),
            ],
            0..40,
        ),
        choice: u8,
    ) {
        let mut input = vec![choice];
        input.extend(words.concat().bytes());
        crate::fuzz::session(&input);
    }
}
