use super::*;
use proptest::prelude::*;
use torwart_core::Mailbox;

use crate::model::GreylistMode;

const NOW: Time = 1_800_000_000;
const HOUR: u32 = 3600;
const DAY: u32 = 24 * HOUR;

pub(crate) fn mk_greylisting() -> Greylisting {
    Greylisting {
        mode: GreylistMode::Suspicious,
        delay: Duration::from_secs(300),
        retry_window: Duration::from_secs(48 * 3600),
        pass_ttl: Duration::from_secs(36 * 24 * 3600),
        auto_pass_after: 5,
        prefix_ipv4: 24,
        prefix_ipv6: 64,
        pool_identity: true,
        exempt_recipients: vec!["postmaster".into(), "abuse".into()],
        accept_on_store_failure: true,
    }
}

fn mk_params() -> Params {
    Params::new(&mk_greylisting(), false)
}

fn mk_waiting(first_seen: Time) -> Record {
    judge(None, first_seen, &mk_params()).write.unwrap()
}

fn mk_passed(first_seen: Time, passed: Time) -> Record {
    delivered(Some(mk_waiting(first_seen)), passed, &mk_params())
}

#[test]
fn a_triplet_is_judged_by_its_age() {
    use Greylist::{Early, Expired, New, Passed};
    let table: [(&str, Option<Record>, Greylist, u32); 11] = [
        ("never seen", None, New, 300),
        ("just now", Some(mk_waiting(NOW)), Early, 300),
        ("a second too early", Some(mk_waiting(NOW - 299)), Early, 1),
        ("ripe", Some(mk_waiting(NOW - 300)), Passed, 0),
        ("at the end of the window", Some(mk_waiting(NOW - 48 * HOUR)), Passed, 0),
        ("after the window", Some(mk_waiting(NOW - 48 * HOUR - 1)), Passed, 0),
        ("passed", Some(mk_passed(NOW - DAY, NOW - HOUR)), Passed, 0),
        ("passed long ago", Some(mk_passed(NOW - 37 * DAY, NOW - 36 * DAY + 1)), Passed, 0),
        ("passed too long ago", Some(mk_passed(NOW - 37 * DAY, NOW - 36 * DAY)), Expired, 300),
        ("first seen in the future", Some(mk_waiting(NOW + DAY)), New, 300),
        ("passed in the future", Some(mk_passed(NOW + DAY, NOW + DAY)), Passed, 0),
    ];
    for (name, record, outcome, wait) in table {
        let step = judge(record, NOW, &mk_params());
        assert_eq!((step.judged.outcome, step.judged.wait), (outcome, wait), "{name}");
        assert_eq!(step.judged.passes(), outcome == Passed, "{name}");
    }
}

#[test]
fn the_first_pass_tells_how_long_the_mail_was_held_up() {
    assert_eq!(judge(Some(mk_waiting(NOW - 600)), NOW, &mk_params()).judged.held, Some(600));
    assert_eq!(judge(Some(mk_passed(NOW - 600, NOW - 1)), NOW, &mk_params()).judged.held, None);
}

#[test]
fn a_pass_slides_with_each_mail() {
    let step = judge(Some(mk_passed(NOW - 40 * DAY, NOW - 30 * DAY)), NOW, &mk_params());
    assert_eq!(
        step.write,
        Some(Record { first_seen: NOW - 40 * DAY, passed: Some(NOW), expires: NOW + 36 * DAY })
    );
}

#[test]
fn a_delay_of_days_is_half_a_day() {
    let mut greylisting = mk_greylisting();
    greylisting.delay = Duration::from_secs(7 * 24 * 3600);
    let params = Params::new(&greylisting, false);
    assert_eq!(judge(Some(mk_waiting(NOW - 12 * HOUR)), NOW, &params).judged.outcome, Greylist::Passed);
    assert_eq!(judge(Some(mk_waiting(NOW - 12 * HOUR + 1)), NOW, &params).judged.outcome, Greylist::Early);
}

#[test]
fn a_short_retry_window_is_a_day_and_a_first_try_is_remembered_for_four() {
    for (configured, window, kept) in
        [(HOUR, DAY, 4 * DAY), (48 * HOUR, 2 * DAY, 4 * DAY), (7 * DAY, 7 * DAY, 7 * DAY)]
    {
        let retry_window = Duration::from_secs(configured.into());
        let params = Params::new(&Greylisting { retry_window, ..mk_greylisting() }, false);
        assert_eq!((params.window(), params.kept()), (window, kept));
        let record = Record::waiting(NOW, &params);
        assert!(!record.is_expired(NOW + kept) && record.is_expired(NOW + kept + 1));
    }
}

#[test]
fn the_null_senders_pass_is_lent_to_one_session_at_a_time() {
    let params = Params::new(&mk_greylisting(), true);
    let waiting = mk_waiting(NOW - HOUR);
    let step = judge(Some(waiting), NOW, &params);
    let lent = Record { passed: Some(NOW), ..waiting };
    assert_eq!((step.judged.outcome, step.write), (Passed, Some(lent)));
    use Greylist::{Early, Passed};
    for (name, record, now, outcome, wait) in [
        ("lent to another", lent, NOW + 1, Early, LEASE - 1),
        ("nothing was heard of the other", lent, NOW + LEASE, Passed, 0),
        ("given back", lent.given_back(), NOW + 1, Passed, 0),
        ("old enough to pass whatever happens", lent, NOW + 12 * HOUR, Passed, 0),
        ("the clock was set back", lent, NOW - 1, Passed, 0),
        ("too early as well", Record { first_seen: NOW, ..lent }, NOW + 1, Early, LEASE - 1),
    ] {
        let judged = judge(Some(record), now, &params).judged;
        assert_eq!((judged.outcome, judged.wait), (outcome, wait), "{name}");
    }
}

#[test]
fn a_known_sender_and_a_known_client_pass_all_but_the_null_sender() {
    let params = mk_params();
    let known = Some(mk_passed(NOW - DAY, NOW - HOUR));
    let mut counter = Counter::default();
    for sender in 0..5 {
        counter = counter.delivered(sender, NOW - DAY + sender * HOUR, &params);
    }
    let outcome = |known, counter, params: &Params| {
        judge_all(&[None], known, counter, NOW, params).next().unwrap().judged.outcome
    };
    assert_eq!(outcome(known, None, &params), Greylist::Known);
    assert_eq!(outcome(None, Some(&counter), &params), Greylist::Auto);
    assert_eq!(outcome(known, Some(&counter), &params), Greylist::Known);
    assert_eq!(outcome(None, None, &params), Greylist::New);
    let null = Params::new(&mk_greylisting(), true);
    assert_eq!(outcome(known, Some(&counter), &null), Greylist::New);
    let stale = Some(mk_passed(NOW - 37 * DAY, NOW - 36 * DAY));
    assert_eq!(outcome(stale, None, &params), Greylist::New);
}

#[test]
fn auto_pass_counts_one_sender_an_hour_and_each_once() {
    let params = mk_params();
    let count = |deliveries: &[(u32, u32)]| {
        let start = Counter::default();
        deliveries.iter().fold(start, |counter, (sender, at)| counter.delivered(*sender, NOW + at, &params))
    };
    type Row<'a> = (&'a str, &'a [(u32, u32)], usize);
    let table: [Row<'_>; 5] = [
        ("one", &[(1, 0)], 1),
        ("a burst", &[(1, 0), (2, 1), (3, 2), (4, 3599)], 1),
        ("one an hour", &[(1, 0), (2, 3600), (3, 7200)], 3),
        ("the same one", &[(1, 0), (1, 3600), (1, 7200)], 1),
        ("after a long silence", &[(1, 0), (2, 3600), (3, 3600 + 36 * DAY)], 1),
    ];
    for (name, deliveries, expected) in table {
        assert_eq!(count(deliveries).senders.len(), expected, "{name}");
    }
    let five: Vec<_> = (0..5).map(|i| (i, i * HOUR)).collect();
    assert!(count(&five).passes(NOW + 5 * HOUR, &params));
    assert!(!count(&five[..4]).passes(NOW + 5 * HOUR, &params));
    assert!(!count(&five).passes(NOW + 4 * HOUR + 36 * DAY, &params));
    let mut greylisting = mk_greylisting();
    greylisting.auto_pass_after = 0;
    assert!(!count(&five).passes(NOW + 5 * HOUR, &Params::new(&greylisting, false)), "0 is off");
}

#[test]
fn a_client_has_several_identities_and_the_null_sender_its_helo() {
    let greylisting = mk_greylisting();
    let client = "192.0.2.77".parse().unwrap();
    let shown = |client, helo, null, verified: &[Identity], greylisting: &Greylisting| {
        let all = identities(client, helo, null, verified, greylisting);
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let spf = [Identity::Spf("example.org".into())];
    assert_eq!(shown(client, Some("mx.example.org"), false, &[], &greylisting), "network:192.0.2.0/24");
    assert_eq!(shown(client, None, false, &spf, &greylisting), "spf:example.org network:192.0.2.0/24");
    let alone = Greylisting { pool_identity: false, ..mk_greylisting() };
    assert_eq!(shown(client, None, false, &spf, &alone), "network:192.0.2.0/24");
    assert_eq!(shown("::ffff:192.0.2.77".parse().unwrap(), None, false, &[], &alone), "network:192.0.2.0/24");
    assert_eq!(shown("2001:db8::1:2".parse().unwrap(), None, false, &[], &alone), "network:2001:db8::/64");
    for (helo, identity) in [
        (Some("Out-7.Mail.Example.CO.UK"), "helo:example.co.uk"),
        (Some("example.org."), "helo:example.org"),
        (Some("localhost"), "network:192.0.2.0/24"),
        (Some("[192.0.2.1]"), "network:192.0.2.0/24"),
        (Some("192.0.2.1"), "network:192.0.2.0/24"),
        (Some("co.uk"), "network:192.0.2.0/24"),
        (Some(""), "network:192.0.2.0/24"),
        (Some("."), "network:192.0.2.0/24"),
        (None, "network:192.0.2.0/24"),
    ] {
        assert_eq!(shown(client, helo, true, &spf, &greylisting), identity, "{helo:?}");
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    (NOW - 60 * DAY..NOW + DAY, proptest::option::of(0..60 * DAY)).prop_map(|(first_seen, passed)| {
        match passed {
            None => mk_waiting(first_seen),
            Some(after) => mk_passed(first_seen, first_seen + after),
        }
    })
}

fn any_params() -> impl Strategy<Value = Params> {
    (0..30 * u64::from(DAY), 0..30 * u64::from(DAY), 0..90 * u64::from(DAY)).prop_map(
        |(delay, window, ttl)| {
            let greylisting = Greylisting {
                delay: Duration::from_secs(delay),
                retry_window: Duration::from_secs(window),
                pass_ttl: Duration::from_secs(ttl),
                ..mk_greylisting()
            };
            Params::new(&greylisting, false)
        },
    )
}

proptest! {
    #[test]
    fn a_triplet_retried_any_time_between_delay_and_window_passes(params in any_params(), part in 0.0..=1.0f64) {
        let record = judge(None, NOW, &params).write;
        let after = params.delay() + ((params.window() - params.delay()) as f64 * part) as u32;
        prop_assert_eq!(judge(record, NOW + after, &params).judged.outcome, Greylist::Passed);
    }

    #[test]
    fn an_early_retry_changes_nothing(params in any_params(), parts in proptest::collection::vec(0.0..1.0f64, 1..8)) {
        let record = judge(None, NOW, &params).write;
        for part in parts {
            let after = (f64::from(params.delay()) * part) as u32;
            let step = judge(record, NOW + after, &params);
            if after < params.delay() {
                prop_assert_eq!(step.judged.outcome, Greylist::Early);
                prop_assert_eq!(step.write, None);
                prop_assert_eq!(step.judged.wait, params.delay() - after);
            }
        }
    }

    #[test]
    fn whatever_the_settings_and_the_clock_nobody_is_deferred_for_ever(
        params in any_params(),
        start in proptest::option::of(any_record()),
        interval in 60..=72 * HOUR,
        null_sender: bool,
    ) {
        let params = Params { single_use: null_sender, ..params };
        let mut record = start;
        let mut now = NOW;
        let mut tries = 0;
        loop {
            let step = judge(record, now, &params);
            if step.judged.passes() {
                break;
            }
            record = step.write.or(record);
            now += interval;
            record = record.filter(|record| !record.is_expired(now));
            tries += 1;
            prop_assert!(now - NOW <= LONGEST_DELAY + 2 * interval, "{} tries", tries);
        }
    }

    #[test]
    fn the_wait_that_is_promised_is_the_wait(params in any_params(), record in proptest::option::of(any_record())) {
        let step = judge(record, NOW, &params);
        let after = step.write.or(record);
        prop_assert!(judge(after, NOW + step.judged.wait, &params).judged.passes());
    }

    #[test]
    fn the_order_of_recipients_does_not_matter(
        records in proptest::collection::vec(proptest::option::of(any_record()), 1..6),
        known in proptest::option::of(any_record()),
        turn in 0usize..6,
    ) {
        let params = mk_params();
        let mut turned = records.clone();
        turned.rotate_left(turn % records.len());
        turned.reverse();
        let steps = |records: &[Option<Record>]| {
            let mut all: Vec<_> = records.iter().zip(judge_all(records, known, None, NOW, &params))
                .map(|(record, step)| format!("{record:?} {step:?}")).collect();
            all.sort();
            all
        };
        prop_assert_eq!(steps(&records), steps(&turned));
    }

    #[test]
    fn what_passes_by_its_counter_is_written_as_if_there_were_none(
        records in proptest::collection::vec(proptest::option::of(any_record()), 1..6),
    ) {
        let params = mk_params();
        let mut counter = Counter::default();
        for sender in 0..MAX_COUNTED_SENDERS {
            counter = counter.delivered(sender, NOW - 40 * HOUR + sender * HOUR, &params);
        }
        let with: Vec<_> = judge_all(&records, None, Some(&counter), NOW, &params).collect();
        let without: Vec<_> = judge_all(&records, None, None, NOW, &params).collect();
        let writes = |steps: &[Step]| steps.iter().map(|step| step.write).collect::<Vec<_>>();
        prop_assert_eq!(writes(&with), writes(&without));
        prop_assert!(with.iter().all(|step| step.judged.passes()));
    }

    #[test]
    fn one_ripe_recipient_passes_all(records in proptest::collection::vec(proptest::option::of(any_record()), 1..6)) {
        let params = mk_params();
        let alone = records.iter().filter(|r| judge(**r, NOW, &params).judged.passes()).count();
        let together = judge_all(&records, None, None, NOW, &params).filter(|step| step.judged.passes()).count();
        prop_assert_eq!(together, if alone > 0 { records.len() } else { 0 });
    }

    #[test]
    fn of_two_records_the_one_that_serves_the_sender_better_counts(a in any_record(), b in any_record()) {
        let params = mk_params();
        let wait = |record| judge(record, NOW, &params).judged.wait;
        let chosen = better(Some(a), Some(b), NOW, &params);
        prop_assert_eq!(wait(chosen), wait(Some(a)).min(wait(Some(b))));
        prop_assert_eq!(better(Some(b), Some(a), NOW, &params).map(|r| wait(Some(r))), chosen.map(|r| wait(Some(r))));
        prop_assert_eq!(better(None, Some(a), NOW, &params), Some(a));
    }

    #[test]
    fn normalising_never_fails_and_only_shortens_or_keeps(local in "\\PC{0,64}", domain in "[a-z0-9.-]{0,40}") {
        let key = normalise_sender(Some(&Mailbox::new(local.clone(), domain.clone())));
        prop_assert!(key.len() <= local.to_lowercase().len() + domain.len() + local.len() + 2);
        prop_assert_ne!(key, "");
    }

    #[test]
    fn a_record_is_kept_as_long_as_it_can_pass(params in any_params(), after in 0..120 * DAY) {
        let record = judge(None, NOW, &params).write.unwrap();
        let now = NOW + after;
        prop_assert_eq!(record.is_expired(now), after > params.kept());
        let record = delivered(None, NOW, &params);
        prop_assert!(!(judge(Some(record), now, &params).judged.passes() && record.is_expired(now)));
    }
}

fn mk_mailbox(text: &str) -> Mailbox {
    let (local, domain) = text.rsplit_once('@').unwrap();
    Mailbox::new(local, domain)
}

fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('|').map(str::trim).collect())
}

#[test]
fn two_messages_of_one_list_have_one_key() {
    for row in rows(include_str!("normalise_table.txt")) {
        let [service, first, second] = row[..] else { panic!("{row:?}") };
        let key = |text| normalise_sender(Some(&mk_mailbox(text)));
        assert_eq!(key(first), key(second), "{service}");
    }
}

#[test]
fn different_people_have_different_keys() {
    for row in rows(include_str!("normalise_apart.txt")) {
        let [first, second] = row[..] else { panic!("{row:?}") };
        let key = |text| normalise_sender(Some(&mk_mailbox(text)));
        assert_ne!(key(first), key(second));
    }
}

#[test]
fn a_plain_address_is_its_own_key_and_the_null_sender_is_empty() {
    assert_eq!(normalise_sender(Some(&mk_mailbox("Anna.Smith@Example.COM"))), "anna.smith@example.com");
    assert_eq!(normalise_sender(None), "");
}
