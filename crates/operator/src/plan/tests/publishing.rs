use torwart_policy::compile::CONFIRM_REMOVAL;
use torwart_policy::publish::{FORMAT_WRITTEN, Index};

use super::*;

const DAY_MS: i64 = 86_400_000;

fn mk_world(count: usize) -> World {
    let domains: Vec<String> =
        (0..count).map(|n| mk_domain(&format!("d{n}"), &format!("d{n}.example"), "")).collect();
    let mut world = World::new(&format!("{GATEWAY}---\n{}", domains.join("---\n")));
    world.pod("v-0", 0);
    world
}

fn gateway() -> ObjectRef {
    ObjectRef::gateway("default")
}

#[test]
fn the_same_once_more_writes_nothing() {
    let mut world = mk_world(5);
    world.settle();
    for _ in 0..3 {
        world.touch();
        world.now_ms += 10_000;
        assert!(world.step().is_nothing());
    }
}

#[test]
fn a_new_operator_changes_nothing() {
    let mut world = mk_world(5);
    world.settle();
    world.restart();
    world.now_ms += 3_600_000;
    assert!(world.step().is_nothing());
    assert!(!world.waits);
}

#[test]
fn one_change_writes_its_slot_and_the_index() {
    let mut world = mk_world(40);
    world.settle();
    let before = world.sequence();
    world.apply(&mk_domain("d7", "d7.example", "  enforcement: Monitor\n"));
    let wrote = world.step();
    assert_eq!((wrote.slots, wrote.index), (1, true));
    assert!(world.sequence() > before);
    // And back: the chunk is still there.
    world.apply(&mk_domain("d7", "d7.example", ""));
    let wrote = world.step();
    assert!(wrote.slots <= 1 && wrote.index);
    world.restart();
    assert!(world.published.snapshot.is_some(), "what is published is whole");
}

#[test]
fn a_slot_keeps_what_the_present_index_needs_and_nothing_older() {
    let mut world = mk_world(1);
    world.settle();
    for n in 1..6 {
        world.apply(&mk_domain("d0", "d0.example", &format!("  limits: {{recipients: {}}}\n", 100 + n)));
        let plan = world.plan();
        let needed = publication::present_index(&world.published).unwrap().slots.clone();
        let slots: Vec<_> = plan
            .writes
            .iter()
            .filter_map(|write| match write {
                Write::Slot(slot) => Some(slot),
                _ => None,
            })
            .collect();
        assert!(!slots.is_empty());
        for slot in slots {
            assert_eq!(slot.chunks.len(), 2);
            assert!(slot.chunks.contains_key(&needed[&slot.slot]));
        }
        world.write(plan);
    }
}

#[test]
fn the_sequence_rises_even_if_the_index_was_deleted_or_the_clock_went_back() {
    let mut world = mk_world(2);
    world.settle();
    let first = world.sequence();
    world.now_ms -= DAY_MS;
    world.apply(&mk_domain("d0", "d0.example", "  enforcement: Monitor\n"));
    world.step();
    assert_eq!(world.sequence(), first + 1);
    world.now_ms += 2 * DAY_MS;
    world.published.index = None;
    world.published.snapshot = None;
    let wrote = world.step();
    assert!(wrote.index);
    assert_eq!(wrote.slots, world.published.slots.len(), "no index names them, so they may be gone by now");
    assert_eq!(world.sequence(), u64::try_from(world.now_ms).unwrap());
}

#[test]
fn what_is_broken_or_gone_is_published_again() {
    let mut world = mk_world(3);
    world.settle();
    world.published.index.as_mut().unwrap().index = Err("not JSON".to_owned());
    world.published.snapshot = None;
    assert!(world.step().index);

    let slot = *world.published.slots.keys().next().unwrap();
    let bytes: Arc<[u8]> = b"junk".to_vec().into();
    world
        .published
        .slots
        .get_mut(&slot)
        .unwrap()
        .chunks
        .values_mut()
        .for_each(|chunk| *chunk = bytes.clone());
    world.published.snapshot = None;
    let wrote = world.step();
    assert_eq!((wrote.slots, wrote.index), (1, true));

    world.published.slots.remove(&slot);
    world.published.snapshot = None;
    let wrote = world.step();
    assert_eq!((wrote.slots, wrote.index), (1, true));
    world.restart();
    assert_eq!(world.published.snapshot.as_ref().unwrap().domains.len(), 3);
}

#[test]
fn a_chunk_that_an_unfinished_publication_left_is_written_again() {
    let mut world = mk_world(3);
    world.settle();
    world.apply(&mk_domain("d0", "d0.example", "  enforcement: Monitor\n"));
    let Plan { writes, .. } = world.plan();
    let Some(Write::Slot(left)) = writes.into_iter().next() else { panic!("no slot is written") };
    let there = world.published.slots.get_mut(&left.slot).unwrap();
    there.chunks = left.chunks.clone();
    there.resource_version = "left".to_owned();
    world.restart();
    let Plan { writes, .. } = world.plan();
    let Some(Write::Slot(again)) = writes.into_iter().next() else { panic!("no slot is written") };
    assert_eq!((again.slot, &again.chunks), (left.slot, &left.chunks));
    assert_eq!(again.against.as_deref(), Some("left"));
}

#[test]
fn of_two_operators_the_slower_one_plans_again() {
    let mut world = mk_world(3);
    world.settle();
    world.apply(&mk_domain("d0", "d0.example", "  enforcement: Monitor\n"));
    // The slow one plans, and another one publishes something else meanwhile.
    let slow = world.plan();
    let Some(Write::Slot(slow_slot)) = slow.writes.first() else { panic!("{:?}", slow.writes) };
    let mut planner = Planner::new();
    std::mem::swap(&mut planner, &mut world.planner);
    world.touch();
    world.now_ms += 5;
    world.step();
    assert_ne!(
        slow_slot.against.as_ref(),
        world.published.slots.get(&slow_slot.slot).map(|slot| &slot.resource_version)
    );
    std::mem::swap(&mut planner, &mut world.planner);
    world.planner.forget();
    let sequence = world.sequence();
    world.touch();
    let wrote = world.step();
    assert!(!wrote.index && wrote.slots == 0, "it is all there");
    assert_eq!(world.sequence(), sequence);
    // Its own sequence was never published: a pod that runs it is not told to have the change.
    world.pod("v-0", sequence - 1);
    world.step();
    assert_eq!(world.shown(&mail_domain("d0"), "Programmed"), "False Updating");
}

#[test]
fn a_plan_that_was_thrown_away_tells_its_events_again() {
    let mut world = mk_world(2);
    world.settle();
    world.apply(&mk_domain("d0", "d1.example", ""));
    let told = |plan: &Plan| plan.writes.iter().filter(|write| matches!(write, Write::Event(_))).count();
    let plan = world.plan();
    assert_eq!(told(&plan), 1);
    assert_eq!(told(&world.plan()), 0);
    world.planner.forget();
    assert_eq!(told(&world.plan()), 1);
}

#[test]
fn a_mass_removal_waits_until_it_is_confirmed() {
    let mut world = mk_world(12);
    world.settle();
    for n in 0..10 {
        world.delete(&mail_domain(&format!("d{n}")));
    }
    world.apply(&mk_domain("new", "new.example", ""));
    world.now_ms += 1000;
    let wrote = world.step();
    assert_eq!(wrote.events(), ["MassRemoval"]);
    assert_eq!(world.shown(&gateway(), "Programmed"), "False MassRemoval");
    assert_eq!(world.shown(&mail_domain("new"), "Programmed"), "False MassRemoval");
    assert_eq!(world.shown(&mail_domain("d11"), "Programmed"), "True Programmed");
    assert_eq!(world.published.snapshot.as_ref().unwrap().domains.len(), 12);
    assert!(world.step().is_nothing());

    let message = world.condition(&gateway(), "Programmed").message;
    let confirm = message.rsplit('"').nth(1).unwrap().to_owned();
    let annotated = GATEWAY.replace(
        "{name: default}",
        &format!("{{name: default, annotations: {{{CONFIRM_REMOVAL}: \"{confirm}\"}}}}"),
    );
    world.apply(&annotated);
    world.settle();
    let snapshot = world.published.snapshot.clone().unwrap();
    assert_eq!((snapshot.domains.len(), snapshot.removed.len()), (3, 10));
    assert_eq!(world.shown(&gateway(), "Programmed"), "True Programmed");
    assert_eq!(world.shown(&mail_domain("new"), "Programmed"), "True Programmed");
}

#[test]
fn what_left_stays_known_for_its_grace_whoever_is_the_operator() {
    let mut world = mk_world(3);
    world.settle();
    world.delete(&mail_domain("d0"));
    let wrote = world.step();
    assert!(wrote.index);
    let until = world.published.snapshot.as_ref().unwrap().removed["d0.example"];
    assert_eq!(until, world.now_ms / 1000 + 86_400);
    world.restart();
    world.now_ms += DAY_MS / 2;
    assert!(!world.step().index);
    assert_eq!(world.published.snapshot.as_ref().unwrap().removed["d0.example"], until);
    world.now_ms += DAY_MS / 2;
    assert!(world.step().index, "its time is over, though nothing else happened");
    assert!(world.published.snapshot.as_ref().unwrap().removed.is_empty());
}

#[test]
fn nothing_is_published_that_a_pod_could_not_read() {
    let mut world = mk_world(2);
    world.report("old", 0, |report| report.status.formats_read = vec![FORMAT_WRITTEN + 1]);
    let wrote = world.step();
    assert!(!wrote.index && wrote.slots == 0);
    assert_eq!(world.shown(&gateway(), "Programmed"), "False FormatNotReadable");
    assert_eq!(world.shown(&mail_domain("d0"), "Programmed"), "False FormatNotReadable");
    assert_eq!(wrote.events(), ["FormatNotReadable"]);
    let message = world.condition(&gateway(), "Programmed").message;
    assert!(message.contains("old of version 9.9"), "{message}");
    assert!(world.waits);
    assert!(world.step().is_nothing());
    world.pods.ready.remove("old");
    assert!(world.step().index);
}

#[test]
fn the_first_policy_waits_until_the_pods_were_asked() {
    let mut world = mk_world(1);
    world.pods.asked_at = 0;
    assert!(!world.step().index);
    assert!(world.waits);
    assert_eq!(world.shown(&mail_domain("d0"), "Programmed"), "False Pending");
    world.pods.asked_at = 1;
    assert!(world.step().index);
    // What is there in this format already was read by them.
    world.restart();
    world.pods.asked_at = 0;
    world.apply(&mk_domain("d0", "d0.example", "  enforcement: Monitor\n"));
    assert!(world.step().index);
}

#[test]
fn a_newer_format_is_left_alone() {
    let mut world = mk_world(2);
    world.settle();
    let index = world.published.index.as_mut().unwrap();
    index.is_newer = true;
    index.index = Err("it is in format 7".to_owned());
    world.published.snapshot = None;
    world.apply(&mk_domain("d0", "d0.example", "  enforcement: Monitor\n"));
    let wrote = world.step();
    assert!(!wrote.index && wrote.slots == 0);
    assert_eq!(wrote.statuses, [gateway()], "{wrote:?}");
    assert_eq!(wrote.events(), ["NewerFormat"]);
    assert_eq!(world.shown(&gateway(), "Programmed"), "False NewerFormat");
    assert_eq!(world.shown(&gateway(), "Accepted"), "True Accepted");
    assert!(world.problems[0].starts_with("NewerFormat"));
    assert!(world.step().is_nothing());
}

/// Text that compresses badly, the same each time.
fn noise(length: usize, mut seed: u64) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..length)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(letters[usize::try_from(seed >> 33).unwrap() % letters.len()])
        })
        .collect()
}

#[test]
fn an_object_that_fits_into_no_config_map_is_left_out_and_the_rest_is_published() {
    let mut world = mk_world(2);
    world.settle();
    let sequence = world.sequence();
    let senders: Vec<String> =
        (0..900).map(|n| format!("{{pattern: \"*@*.example\", reason: \"{}\"}}", noise(900, n))).collect();
    let large = mk_domain("d0", "d0.example", &format!("  senders: {{deny: [{}]}}\n", senders.join(", ")));
    // One that was in force before, and one that is new in the same slot.
    world.apply(&large);
    let twin = twin("d0", 0);
    world.apply(&large.replace("name: d0", &format!("name: {twin}")).replace("d0.example", "twin.example"));
    world.apply(&mk_domain("small", "small.example", ""));
    let wrote = world.step();
    assert!(wrote.index && world.sequence() > sequence);
    for name in ["d0", &twin] {
        assert_eq!(world.shown(&mail_domain(name), "Accepted"), "False SnapshotTooLarge");
    }
    world.settle();
    assert_eq!(world.shown(&mail_domain("small"), "Programmed"), "True Programmed");
    assert_eq!(world.shown(&gateway(), "Programmed"), "True Programmed");
    let snapshot = world.published.snapshot.clone().unwrap();
    assert!(snapshot.domains.contains_key(&mail_domain("d0")), "its last form is in force");
    assert!(snapshot.held.iter().any(|domain| domain.to_string() == "twin.example"), "{:?}", snapshot.held);
    assert!(world.step().is_nothing());
    world.apply(&mk_domain("d0", "d0.example", "  enforcement: Monitor\n"));
    world.delete(&mail_domain(&twin));
    world.settle();
    assert_eq!(world.shown(&mail_domain("d0"), "Programmed"), "True Programmed");
}

/// What left the policy belongs to no object that could be left out.
#[test]
fn a_piece_that_fits_into_no_config_map_holds_the_whole() {
    let long = |object: usize| {
        let domains = (0..1_000).map(|n| {
            let noise = noise(180, (object * 1_000 + n) as u64).to_lowercase();
            let label = |from: usize| format!("a{}a", &noise[from..from + 58]);
            format!("{}.{}.{}.example", label(0), label(60), label(120))
        });
        domains.collect::<Vec<_>>().join("\", \"")
    };
    let short = |object: usize| {
        (0..1_000).map(|n| format!("s{object}-{n}.example")).collect::<Vec<_>>().join("\", \"")
    };
    let mut world = mk_world(1);
    for object in 0..4 {
        world.apply(&mk_domain(&format!("long{object}"), &long(object), ""));
        world.apply(&mk_domain(&format!("short{object}"), &short(object), ""));
    }
    world.settle();
    assert_eq!(world.shown(&mail_domain("long3"), "Programmed"), "True Programmed");
    let sequence = world.sequence();
    (0..4).for_each(|object| world.delete(&mail_domain(&format!("long{object}"))));
    let wrote = world.step();
    assert!(!wrote.index && wrote.slots == 0);
    assert_eq!(world.sequence(), sequence);
    assert_eq!(world.shown(&gateway(), "Programmed"), "False SnapshotTooLarge");
    assert_eq!(wrote.events(), ["SnapshotTooLarge"]);
    assert!(world.step().is_nothing());
}

#[test]
fn what_can_not_be_published_is_said_and_not_tried_in_the_same_plan() {
    let mut world = mk_world(2);
    world.settle();
    world.apply(&mk_domain("d1", "d1.example", "  enforcement: Monitor\n"));
    world.publish_failure = Some("403: quota exceeded".to_owned());
    let wrote = world.step();
    assert!(!wrote.index && wrote.slots == 0);
    for object in [gateway(), mail_domain("d1")] {
        assert_eq!(world.shown(&object, "Programmed"), "False PublishFailed");
    }
    assert!(world.condition(&gateway(), "Programmed").message.contains("quota exceeded"));
    assert_eq!(world.shown(&mail_domain("d0"), "Programmed"), "True Programmed");
    world.publish_failure = None;
    world.settle();
    assert_eq!(world.shown(&mail_domain("d1"), "Programmed"), "True Programmed");
}

/// The `n`th name whose object is in the same slot.
fn twin(name: &str, n: usize) -> String {
    let slot = torwart_policy::publish::Slot::of(&mail_domain(name));
    let names = (0..).map(|number| format!("twin{number}"));
    names.filter(|name| torwart_policy::publish::Slot::of(&mail_domain(name)) == slot).nth(n).unwrap()
}

#[test]
fn a_published_index_reads_back() {
    let mut world = mk_world(9);
    world.settle();
    let index = publication::present_index(&world.published).unwrap();
    assert_eq!(Index::from_json(&index.to_json()).unwrap(), *index);
    assert!(index.slots.iter().all(|(slot, hash)| world.published.slots[slot].chunks.contains_key(hash)));
}
