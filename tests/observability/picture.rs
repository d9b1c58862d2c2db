//! The picture of the Overview in the README: a quarter of an hour of mail, as a real Prometheus has read it.
//!
//! ```text
//!   cargo test -p torwart-tests --test observability -- --ignored --nocapture picture
//! ```
//!
//! writes docs/images/overview.svg anew, by tests/dashboards/render. What the mail is made of stands in the picture.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use torwart_tests::{Prometheus, root, tool};

use crate::rig::Rig;

/// Longer than the delay of greylisting, by as much as senders' queues wait.
const LASTS: Duration = Duration::from_secs(13 * 60);
/// What the picture says of it.
const LOAD: &str = "13 minutes of made-up mail: robots that try once, senders that come back after 5 to 9 minutes, \
    known senders, relay attempts, a barred network, a domain in Monitor, a mail server that is down for 2 minutes, \
    a store that hangs for a moment";

/// A mail that waits at its sender.
struct Waiting {
    due: Instant,
    host: String,
    from: String,
}

#[test]
#[ignore = "takes a quarter of an hour, and writes into docs/images"]
fn the_picture_of_the_overview() {
    let rig = Rig::start_with("{mode: Always}");
    let prometheus = Prometheus::start(&rig.targets());
    prometheus.wait_read();
    println!("{} has what there is so far", prometheus.url());
    let began = Instant::now();
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let mut known: Vec<(String, String)> = Vec::new();
    let mut random = 1_u32;
    let mut chance = |of: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % of
    };
    let mut next = began;
    let mut n = 0_u32;
    let mut has_hung = false;
    while began.elapsed() < LASTS {
        // Mail comes in waves, at 1 to 4 a second.
        let wave = (began.elapsed().as_secs_f64() / 80.0).sin() + 1.3;
        next += Duration::from_secs_f64((f64::from(chance(200)) + 50.0) / 150.0 / (wave * 2.0));
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        n += 1;
        let host = format!("198.{}.{}.{}", 18 + n % 2, n / 200 % 250, 1 + n % 200);
        let from = format!("s{n}@sender{}.example", n % 97);
        match chance(100) {
            0..38 => drop(rig.send(&host, &format!("offer{n}@spam.example"), "bert@example.org")),
            38..56 => {
                rig.send(&host, &from, "bert@example.org");
                let pause = Duration::from_secs(u64::from(301 + chance(120) + chance(120)));
                waiting.push_back(Waiting { due: Instant::now() + pause, host, from });
            }
            56..78 => match known.get(usize::try_from(chance(50)).unwrap() % known.len().max(1)) {
                Some((host, from)) => drop(rig.send(host, from, "bert@example.org")),
                None => drop(rig.send(&host, &from, "bert@watched.example")),
            },
            78..84 => drop(rig.send(&host, &from, "someone@elsewhere.example")),
            84..87 => drop(rig.send(&host, &from, "nobody@watched.example")),
            87..90 => rig.barred(),
            90..93 => rig.probe(),
            93..99 => drop(rig.send(&host, &from, "bert@watched.example")),
            _ => rig.gone(),
        }
        let down = Duration::from_secs(420)..Duration::from_secs(540);
        if down.contains(&began.elapsed()) && chance(4) == 0 {
            rig.send(&host_of(n), "cron@sender.example", "bert@down.example");
        }
        if began.elapsed() > Duration::from_secs(600) && !has_hung {
            has_hung = true;
            rig.store_hangs();
        }
        for _ in 0..waiting.len() {
            let Some(mail) = waiting.pop_front() else { break };
            if mail.due > Instant::now() {
                waiting.push_back(mail);
            } else if rig.send(&mail.host, &mail.from, "bert@example.org") == 250 {
                known.push((mail.host, mail.from));
            }
        }
    }
    prometheus.wait_read();
    let render = root().join("tests/dashboards/render").display().to_string();
    let picture = root().join("docs/images/overview.svg").display().to_string();
    let range = LASTS.as_secs().to_string();
    let output = tool(
        "python3",
        &[&render, "--prometheus", &prometheus.url(), "--seconds", &range, "--load", LOAD, "--out", &picture],
    );
    assert_eq!(output.code, 0, "{}", output.text);
    println!("{}", output.text);
}

fn host_of(n: u32) -> String {
    format!("198.18.{}.7", n % 250)
}
