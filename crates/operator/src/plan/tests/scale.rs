use super::*;

const MANY: usize = 10_000;

fn mk_world() -> World {
    let mut text = GATEWAY.to_owned();
    for n in 0..MANY {
        text.push_str("---\n");
        text.push_str(&mk_domain(&format!("d{n}"), &format!("d{n}.example"), ""));
    }
    let mut world = World::new(&text);
    world.pod("v-0", 0);
    world
}

#[test]
fn of_ten_thousand_objects_only_changes_are_compiled_and_written() {
    let mut world = mk_world();
    let wrote = world.step();
    assert_eq!((wrote.slots, wrote.index, wrote.statuses.len()), (64, true, MANY + 1));
    let compilations = world.planner.compilations();
    world.pods_follow();
    let wrote = world.step();
    assert_eq!(wrote.statuses.len(), MANY + 1);
    assert!(wrote.events.len() <= events::MOST, "{}", wrote.events.len());
    let last = wrote.events.last().unwrap();
    assert_eq!(last.reason, MORE_CHANGES);
    assert!(last.message.contains("9972 Programmed"), "{}", last.message);
    // Our own statuses came back, and pods were asked: nothing of that is compiled.
    for _ in 0..3 {
        world.touch();
        world.now_ms += 10_000;
        assert!(world.step().is_nothing());
    }
    assert_eq!(world.planner.compilations(), compilations);
    world.apply(&mk_domain("d77", "d77.example", "  enforcement: Monitor\n"));
    let wrote = world.step();
    assert_eq!((wrote.slots, wrote.index), (1, true));
    assert_eq!(wrote.statuses.len(), 2, "its own and the gateway's");
    assert_eq!(world.planner.compilations(), compilations + 1);
}
