//! The promise: 250 is said only after the upstream said it. 5,000 numbered messages go through while the
//! upstream fails at each step in turn; afterwards the books must agree.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use torwart_tests::{
    Act, Client, Fault, Gateway, PolicyFile, Received, Step, Upstream, without_added_fields,
};

const SENDERS: usize = 8;

/// One way to fail, and how many messages go through it.
struct Phase {
    name: &'static str,
    fault: Trouble,
}

enum Trouble {
    Refused,
    /// Strikes each `every`th time.
    At(Step, Act, u32),
}

fn say(text: &str) -> Act {
    Act::Say(format!("{text}\r\n").into_bytes())
}

fn leave(text: &str) -> Act {
    Act::SayAndClose(format!("{text}\r\n").into_bytes())
}

fn phases() -> Vec<Phase> {
    use Step::{Banner, Body, Data, Dot, Ehlo, Mail, Rcpt};
    let at = |name, step, act, every| Phase { name, fault: Trouble::At(step, act, every) };
    vec![
        Phase { name: "connection refused", fault: Trouble::Refused },
        at("banner 421", Banner, leave("421 4.3.2 busy"), 1),
        at("banner 554", Banner, leave("554 5.3.2 never"), 1),
        at("banner: closed", Banner, Act::Close, 1),
        at("banner: slow", Banner, Act::Trickle, 1),
        at("EHLO 451", Ehlo, say("451 4.3.0 later"), 1),
        at("EHLO: closed", Ehlo, Act::Close, 1),
        at("EHLO: slow", Ehlo, Act::Trickle, 1),
        at("MAIL 451", Mail, say("451 4.3.0 later"), 2),
        at("MAIL 530", Mail, say("530 5.7.0 log in first"), 2),
        at("MAIL 421", Mail, leave("421 4.3.2 going"), 2),
        at("MAIL: closed", Mail, Act::Close, 2),
        at("RCPT 450", Rcpt, say("450 4.2.1 later"), 2),
        at("RCPT 503", Rcpt, say("503 5.5.1 not now"), 2),
        at("RCPT: closed", Rcpt, Act::Close, 2),
        at("DATA 451", Data, say("451 4.3.0 later"), 2),
        at("DATA 554", Data, say("554 5.5.1 no"), 2),
        at("DATA: closed", Data, Act::Close, 2),
        at("body: closed", Body, Act::Close, 2),
        at("body 421", Body, leave("421 4.3.2 going"), 2),
        at("dot 451", Dot, say("451 4.3.0 later"), 2),
        at("dot 452", Dot, say("452 4.3.1 full"), 2),
        at("dot 503", Dot, say("503 5.5.1 what"), 2),
        at("dot: not kept, closed", Dot, Act::Close, 2),
        at("dot: kept, closed", Dot, Act::KeepAndClose, 2),
        at("dot: slow", Dot, Act::Trickle, 2),
    ]
}

/// Splitmix: the same message for the same number, always.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

pub(crate) fn content(number: u32) -> Vec<u8> {
    let mut seed = u64::from(number);
    let mut out = format!("X-Ledger: {number}\r\nSubject: message {number}\r\n\r\n").into_bytes();
    let lines = if number.is_multiple_of(100) { 4000 } else { random(&mut seed) % 60 };
    for _ in 0..lines {
        match random(&mut seed) % 8 {
            0 => {}
            1 => out.push(b'.'),
            2 => out.extend_from_slice(b".."),
            3 => out.extend_from_slice(b".QUIT"),
            4 => out.extend((0..20).map(|_| 0x80 | (random(&mut seed) & 0x7f) as u8)),
            5 => out.extend((0..900).map(|_| b'a' + (random(&mut seed) % 26) as u8)),
            6 => out.extend_from_slice(b"From the start, a line."),
            _ => out.extend(format!("{:x}", random(&mut seed)).into_bytes()),
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// One attempt in a session of its own; false is a 4xx. Anything else is a failure of the test.
fn attempt(gateway: &Gateway, number: u32, phase: &str) -> bool {
    let mut client = Client::greeted(gateway.smtp);
    let reply = client.mail(&format!("n{number}@sender.example"), &["bert@example.org"], &content(number));
    assert!(reply.code == 250 || reply.is_temporary(), "{phase}: message {number} heard {reply}");
    reply.code == 250
}

/// Brings each number once, several at a time; returns those that heard 4xx.
fn bring(gateway: &Gateway, numbers: &[u32], phase: &str) -> Vec<u32> {
    let next = AtomicU32::new(0);
    let deferred = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if !attempt(gateway, *number, phase) {
                        deferred.lock().unwrap().push(*number);
                    }
                }
            });
        }
    });
    deferred.into_inner().unwrap()
}

pub(crate) fn number_of(received: &Received) -> u32 {
    let digits = received.from.strip_prefix('n').and_then(|rest| rest.strip_suffix("@sender.example"));
    digits.and_then(|digits| digits.parse().ok()).unwrap()
}

#[test]
fn every_250_is_one_message_upstream_whatever_fails() {
    let total = 5000;
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let phases = phases();
    let numbers: Vec<u32> = (0..total).collect();
    let share = numbers.len().div_ceil(phases.len());
    let mut kept_twice = 0;
    let mut unknown = 0.0;
    for (phase, numbers) in phases.iter().zip(numbers.chunks(share)) {
        let name = phase.name;
        match &phase.fault {
            Trouble::Refused => upstream.close(),
            Trouble::At(step, act, every) => {
                upstream.fail(Some(Fault { step: *step, act: act.clone(), every: *every }));
            }
        }
        let deferred = bring(&gateway, numbers, name);
        let struck = upstream.struck();
        match &phase.fault {
            Trouble::Refused => {
                assert_eq!(deferred.len(), numbers.len(), "{name}");
                upstream.open();
            }
            Trouble::At(_, Act::Trickle, _) => assert!(deferred.is_empty(), "{name}: {deferred:?}"),
            Trouble::At(_, act, every) => {
                assert!(struck > 0 && !deferred.is_empty(), "{name} struck {struck} times");
                assert_eq!(deferred.len() == numbers.len(), *every == 1, "{name}");
                kept_twice += if *act == Act::KeepAndClose { struck } else { 0 };
            }
        }
        let before = std::mem::replace(&mut unknown, outcome_unknown(&gateway));
        let possible = possibly_unknown(&phase.fault, struck);
        let counted = (unknown - before) as u32;
        assert!(possible.contains(&counted), "{name} struck {struck} times, {counted} outcomes are unknown");
        upstream.fail(None);
        let again = bring(&gateway, &deferred, name);
        assert!(again.is_empty(), "{name} is over, yet these are deferred: {again:?}");
    }

    let mut copies: HashMap<u32, u32> = HashMap::new();
    for received in upstream.received() {
        let number = number_of(&received);
        assert!(without_added_fields(&received.content) == content(number), "message {number} was changed");
        *copies.entry(number).or_default() += 1;
    }
    let lost: Vec<u32> = numbers.iter().copied().filter(|number| !copies.contains_key(number)).collect();
    assert!(lost.is_empty(), "250 was said, but they are not there: {lost:?}");
    let doubles: u32 = copies.values().map(|count| count - 1).sum();
    assert!(kept_twice > 0, "the lost final reply was not tried");
    assert_eq!(doubles, kept_twice, "a double without a lost final reply");
}

fn outcome_unknown(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("torwart_outcome_unknown_total", &[])
}

/// How many outcomes the gateway cannot know when the fault has struck so often.
fn possibly_unknown(fault: &Trouble, struck: u32) -> RangeInclusive<u32> {
    match fault {
        // The dot was sent, and no reply came.
        Trouble::At(Step::Dot, Act::Close | Act::KeepAndClose, _) => struck..=struck,
        // A short message is on its way, dot and all, before the gateway sees that the upstream has gone.
        Trouble::At(Step::Body, Act::Close, _) => 0..=struck,
        _ => 0..=0,
    }
}

#[test]
fn a_dead_pooled_connection_is_replaced_unseen() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    for number in 0..20 {
        assert!(attempt(&gateway, number, "nothing fails"));
        upstream.drop_connections();
    }
    assert_eq!(upstream.received().len(), 20);
}

#[test]
fn connections_to_the_upstream_are_reused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    for number in 0..50 {
        assert!(attempt(&gateway, number, "nothing fails"));
    }
    assert!(upstream.accepted() < 5, "{} connections for 50 messages", upstream.accepted());
}

#[test]
fn the_second_upstream_takes_over() {
    let first = Upstream::start();
    let second = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(first.endpoint).upstream(second.endpoint));
    assert!(attempt(&gateway, 1, "both are well"));
    first.close();
    assert!(attempt(&gateway, 2, "the first is gone"));
    assert_eq!((first.received().len(), second.received().len()), (1, 1));
}

#[test]
fn a_refusal_of_the_upstream_is_passed_on_in_our_words() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).route("softBounce: Never"));
    for step in [Step::Mail, Step::Rcpt, Step::Dot] {
        upstream.fail_always(step, say("550 5.7.1 the host db7.internal says no"));
        // A recipient each: that one was refused is remembered.
        let to = format!("{step:?}@example.org");
        let reply = gateway.client().mail("anna@sender.example", &[&to], &content(1));
        assert_eq!((reply.code, reply.enhanced()), (550, "5.7.1"), "{reply}");
        assert!(!reply.text().contains("internal"), "the upstream's words are for the log only: {reply}");
        gateway
            .transaction("the refusal", |line| line["upstream_reply"].to_string().contains("db7.internal"));
    }
}

#[test]
fn a_new_routes_refusal_bounces_nobody_until_something_was_delivered() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let send = || gateway.client().mail("anna@sender.example", &["bert@example.org"], &content(1));
    upstream.fail_always(Step::Mail, say("550 5.7.1 relay access denied"));
    let first = send();
    assert_eq!(first.code, 450, "{first}");
    upstream.fail(None);
    assert_eq!(send().code, 250);
    upstream.fail_always(Step::Mail, say("550 5.7.1 relay access denied"));
    let last = send();
    assert_eq!(last.code, 550, "{last}");
}

#[test]
fn a_client_that_leaves_before_its_dot_leaves_no_message() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    client.ask(354, "DATA");
    client.send(b"one line of many\r\n".repeat(10_000));
    drop(client);
    let line = gateway.transaction("the client is gone", |line| line["reason"] == "client_gone");
    assert_ne!(line["action"], "accept", "{line}");
    assert!(attempt(&gateway, 1, "afterwards"));
    assert_eq!(upstream.received().len(), 1);
}
