use super::*;

type Form = Vec<(DomainPattern, String)>;

fn mk_form(domains: &[String]) -> Form {
    let paths = (0..).map(|index| format!("spec.domains[{index}]"));
    domains.iter().map(|text| DomainPattern::parse(text).unwrap()).zip(paths).collect()
}

/// Each row is an object: what it held, and what it wants now. Says what each has in the end, and the rounds.
fn settle(rows: &[(Vec<String>, Vec<String>)]) -> (Vec<String>, usize) {
    let mut claims = Claims::new(true);
    for (index, (held, wanted)) in rows.iter().enumerate() {
        claims.add(Candidate {
            object: ObjectRef::domain("mail", format!("d{index:05}")),
            created: None,
            held: held.iter().map(|text| DomainPattern::parse(text).unwrap()).collect(),
            wished: Vec::new(),
            present: Some(mk_form(wanted)),
            may_fall_back: true,
        });
    }
    let last = |object: &ObjectRef| {
        let index: usize = object.name[1..].parse().unwrap();
        Some(mk_form(&rows[index].0))
    };
    let (settled, rounds) = claims.settle_counted(|form: &Form| form, last);
    let shown = settled.into_iter().map(|one| {
        let names: Vec<String> =
            one.form.into_iter().flatten().map(|(pattern, _)| pattern.to_string()).collect();
        names.join(" ")
    });
    (shown.collect(), rounds)
}

#[test]
fn three_thousand_that_want_one_more_name_fall_in_one_round() {
    let own = |i: usize| format!("own{i}.example");
    let rows: Vec<_> =
        (0..3_000).map(|i| (vec![own(i)], vec![own(i), "common.example".to_owned()])).collect();
    let (settled, rounds) = settle(&rows);
    assert_eq!(rounds, 2);
    assert_eq!(settled[0], "own0.example common.example");
    assert!((1..3_000).all(|i| settled[i] == own(i)));
}

#[test]
fn a_long_chain_ends_after_a_bounded_number_of_rounds_and_costs_no_bystander_a_thing() {
    let name = |i: usize| format!("d{i}.example");
    // Each wants what the next one has; the last wants what somebody keeps.
    let mut rows: Vec<_> = (0..1_000).map(|i| (vec![name(i)], vec![name(i + 1)])).collect();
    rows.push((vec![name(1_000)], vec![name(1_000)]));
    rows.push((vec!["old.example".to_owned()], vec!["new.example".to_owned()]));
    let (settled, rounds) = settle(&rows);
    assert!(rounds <= MOST_ROUNDS + 1, "{rounds}");
    assert!((0..=1_000).all(|i| settled[i] == name(i)));
    assert_eq!(settled[1_001], "new.example");
}

#[test]
fn a_ring_of_any_length_may_turn() {
    let name = |i: usize| format!("d{i}.example");
    let rows: Vec<_> = (0..200).map(|i| (vec![name(i)], vec![name((i + 1) % 200)])).collect();
    let (settled, rounds) = settle(&rows);
    assert_eq!(rounds, 1);
    assert!((0..200).all(|i| settled[i] == name((i + 1) % 200)));
}
