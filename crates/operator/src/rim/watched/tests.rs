use serde_json::{Value, json};

use super::*;

fn mk_service(name: &str, port: u16) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": port}]},
    }))
    .unwrap()
}

fn names<V>(kept: &Kept<V>) -> Vec<&str> {
    kept.there.keys().map(|(_, name)| name.as_str()).collect()
}

fn read(service: Service) -> Option<SeenService> {
    (service.name_any() != "foreign").then(|| objects::service(service))
}

#[test]
fn a_list_takes_effect_when_it_is_complete_and_forgets_what_is_gone() {
    let mut kept = Kept::default();
    let take = |kept: &mut Kept<SeenService>, event| kept.take(event, read);
    assert_eq!(take(&mut kept, Event::Init), News::None);
    assert_eq!(take(&mut kept, Event::InitApply(mk_service("a", 25))), News::None);
    assert_eq!(take(&mut kept, Event::InitApply(mk_service("foreign", 25))), News::None);
    assert!(!kept.complete && names(&kept).is_empty());
    assert_eq!(take(&mut kept, Event::InitDone), News::Policy);
    assert!(kept.complete);
    assert_eq!(names(&kept), ["a"]);

    // The watch broke, and broke again while it was listed anew: until a list is complete, what was known holds.
    take(&mut kept, Event::Init);
    take(&mut kept, Event::InitApply(mk_service("half", 25)));
    assert!(kept.complete);
    assert_eq!(names(&kept), ["a"]);
    take(&mut kept, Event::Init);
    take(&mut kept, Event::InitApply(mk_service("b", 25)));
    take(&mut kept, Event::InitDone);
    assert_eq!(names(&kept), ["b"]);
    assert!(kept.listed.is_empty());
}

#[test]
fn events_tell_what_is_new() {
    let mut kept = Kept::default();
    let table = [
        (Event::Apply(mk_service("a", 25)), News::Policy, vec!["a"]),
        (Event::Apply(mk_service("a", 25)), News::None, vec!["a"]),
        (Event::Apply(mk_service("a", 26)), News::Policy, vec!["a"]),
        (Event::Apply(mk_service("foreign", 26)), News::None, vec!["a"]),
        (Event::Delete(mk_service("foreign", 26)), News::None, vec!["a"]),
        (Event::Delete(mk_service("a", 26)), News::Policy, vec![]),
        (Event::Delete(mk_service("a", 26)), News::None, vec![]),
    ];
    for (n, (event, news, left)) in table.into_iter().enumerate() {
        assert_eq!(kept.take(event, read), news, "step {n}");
        assert_eq!(names(&kept), left, "step {n}");
    }
}

#[test]
fn an_object_that_concerns_us_no_more_is_gone() {
    let mut kept = Kept::default();
    kept.take(Event::Apply(mk_service("a", 25)), read);
    assert_eq!(kept.take(Event::Apply(mk_service("a", 25)), |_| None::<SeenService>), News::Policy);
    assert!(kept.there.is_empty());
}

#[test]
fn a_status_is_no_news_for_policy_and_a_spec_or_an_annotation_is() {
    let see = |uid: &str, generation: i64, annotation: &str, status: Value| {
        let object = json!({
            "apiVersion": "torwart.dev/v1alpha1",
            "kind": "MailGateway",
            "metadata": {
                "name": "default", "uid": uid, "generation": generation,
                "annotations": {"torwart.dev/acknowledge": annotation},
            },
            "spec": {"hostname": "mx.example.net"},
            "status": status,
        });
        Arc::new(objects::seen(Kind::MailGateway, serde_json::from_value(object).unwrap()))
    };
    let before = see("u", 1, "a", json!({"sequence": 1}));
    let table = [
        (see("u", 1, "a", json!({"sequence": 1})), News::None),
        (see("u", 1, "a", json!({"sequence": 2})), News::Status),
        (see("u", 2, "a", json!({"sequence": 1})), News::Policy),
        (see("u", 1, "b", json!({"sequence": 1})), News::Policy),
        (see("v", 1, "a", json!({"sequence": 1})), News::Policy),
    ];
    for (after, news) in table {
        assert_eq!(after.news(&before), news, "{after:?}");
    }
}

#[test]
fn nothing_is_known_before_every_first_list_is_complete() {
    fn complete<V: Compare>(kept: &mut Kept<V>) {
        kept.complete = true;
    }
    let parts: [fn(&mut State); 7] = [
        |state| complete(&mut state.gateways),
        |state| complete(&mut state.domains),
        |state| complete(&mut state.namespaces),
        |state| complete(&mut state.services),
        |state| complete(&mut state.authorities),
        |state| complete(&mut state.pods),
        |state| complete(&mut state.versions),
    ];
    for missing in 0..=parts.len() {
        let mut state = State::default();
        parts.iter().enumerate().filter(|(n, _)| *n != missing).for_each(|(_, part)| part(&mut state));
        assert_eq!(state.is_complete(), missing == parts.len(), "without part {missing}");
    }
}
