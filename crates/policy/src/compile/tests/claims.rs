use super::*;

fn mk_created(name: &str, domains: &[&str], created: &str) -> String {
    mk_domain(name, domains, "")
        .replace("namespace: mail", &format!("namespace: mail, creationTimestamp: {created}"))
}

#[test]
fn the_older_object_gets_a_domain_that_two_want() {
    let young = mk_created("a", &["x.example"], "2026-02-01T00:00:00Z");
    let old = mk_created("b", &["x.example"], "2026-01-01T00:00:00Z");
    let compilation = compile(&mk_inputs(&mk_files(&[young, old]), None));
    assert_eq!(object_of(&compilation, "x.example").as_deref(), Some("mail/b"));
    let errors = &compilation.outcomes[&ObjectRef::domain("mail", "a")].errors;
    assert_eq!(errors[0].message, "is x.example, which MailDomain mail/b has");
}

#[test]
fn the_holder_keeps_a_domain_that_an_older_object_wants() {
    let holder = mk_created("b", &["x.example"], "2026-02-01T00:00:00Z");
    let first = compile(&mk_inputs(&mk_files(std::slice::from_ref(&holder)), None));
    let older = mk_created("a", &["x.example"], "2026-01-01T00:00:00Z");
    let second = compile(&mk_inputs(&mk_files(&[holder, older]), Some(&first)));
    assert_eq!(object_of(&second, "x.example").as_deref(), Some("mail/b"));
    assert_eq!(state(&second, "a"), State::Rejected);
}

#[test]
fn who_wants_too_much_keeps_what_it_had() {
    let a = mk_domain("a", &["a.example"], "");
    let b = mk_domain("b", &["b.example"], "");
    let first = compile(&mk_inputs(&mk_files(&[a.clone(), b]), None));
    let greedy = mk_domain("b", &["b2.example", "a.example"], "");
    let second = compile(&mk_inputs(&mk_files(&[a, greedy]), Some(&first)));
    assert_eq!(state(&second, "b"), State::Kept);
    assert_eq!(object_of(&second, "b.example").as_deref(), Some("mail/b"));
    assert_eq!(object_of(&second, "b2.example").as_deref(), Some("held"));
}

#[test]
fn two_objects_can_trade_their_domains() {
    let first = compile(&mk_inputs(
        &mk_files(&[mk_domain("a", &["a.example"], ""), mk_domain("b", &["b.example"], "")]),
        None,
    ));
    let second = compile(&mk_inputs(
        &mk_files(&[mk_domain("a", &["b.example"], ""), mk_domain("b", &["a.example"], "")]),
        Some(&first),
    ));
    assert!(second.is_clean(), "{:?}", second.outcomes);
    assert_eq!(object_of(&second, "b.example").as_deref(), Some("mail/a"));
}

#[test]
fn a_domain_that_its_holder_keeps_because_its_new_form_is_bad_is_not_free() {
    let first = compile(&mk_inputs(&mk_files(&[mk_domain("b", &["x.example"], "")]), None));
    // b drops x.example, but its new form is refused, so it still has it.
    let bad = mk_domain("b", &["co.uk"], "");
    let second = compile(&mk_inputs(&mk_files(&[bad, mk_domain("a", &["x.example"], "")]), Some(&first)));
    assert_eq!(state(&second, "b"), State::Kept);
    assert_eq!(state(&second, "a"), State::Rejected);
    assert_eq!(object_of(&second, "x.example").as_deref(), Some("mail/b"));
}

#[test]
fn a_loss_that_gives_a_domain_back_is_followed_to_its_end() {
    let first = compile(&mk_inputs(
        &mk_files(&[mk_domain("b", &["b.example"], ""), mk_domain("c", &["c.example"], "")]),
        None,
    ));
    // b asks for c's domain in vain and keeps b.example, which a wanted, since b seemed to let it go.
    let second = compile(&mk_inputs(
        &mk_files(&[
            mk_domain("a", &["b.example"], ""),
            mk_domain("b", &["c.example"], ""),
            mk_domain("c", &["c.example"], ""),
        ]),
        Some(&first),
    ));
    assert_eq!(object_of(&second, "b.example").as_deref(), Some("mail/b"));
    assert_eq!(state(&second, "a"), State::Rejected);
    assert_eq!(state(&second, "b"), State::Kept);
}
