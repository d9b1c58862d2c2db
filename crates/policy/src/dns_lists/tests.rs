use proptest::prelude::*;

use super::*;

fn codes(text: &str) -> ListAnswers {
    ListAnswers::Codes(vec![ListAnswers::read_codes(text).unwrap()])
}

fn mk(kind: ListKind, responses: &[(ListAnswers, f32)]) -> DnsList {
    let responses = responses.iter().cloned().map(|(answers, score)| ListResponse { answers, score });
    DnsList {
        name: "list".into(),
        zone: "list.example".into(),
        kind,
        key_file: None,
        responses: responses.collect(),
        probe: ListProbe::default(),
    }
}

/// As the manifests of the documentation write them.
fn zen() -> DnsList {
    mk(ListKind::Block, &[(codes("127.0.0.2-127.0.0.9"), 10.0), (codes("127.0.0.10-127.0.0.11"), 7.0)])
}

fn dnswl() -> DnsList {
    mk(ListKind::Allow, &[(codes("127.0.0.0-127.0.255.254"), -2.0), (codes("127.0.5.3"), -4.0)])
}

fn surbl() -> DnsList {
    let bits = |bits, score| (ListAnswers::Bits(bits), score);
    mk(ListKind::Block, &[bits(8, 6.0), bits(16, 6.0), bits(64, 5.0), bits(128, 3.0)])
}

fn word(list: &DnsList, answers: &str) -> String {
    let answers: Vec<IpAddr> = answers.split_whitespace().map(|answer| answer.parse().unwrap()).collect();
    match list.word(&answers) {
        ListWord::NotListed => "not listed".to_owned(),
        ListWord::Listed { code, score } => format!("{code} {score}"),
        ListWord::Unweighed { code } => format!("{code} unweighed"),
        ListWord::Error { code } => format!("{code} error"),
    }
}

#[test]
fn answers_mean_what_the_manifest_says() {
    for (list, answers, wanted) in [
        (zen(), "", "not listed"),
        (zen(), "127.0.0.2", "127.0.0.2 10"),
        (zen(), "127.0.0.9", "127.0.0.9 10"),
        (zen(), "127.0.0.11", "127.0.0.11 7"),
        (zen(), "127.0.0.12", "127.0.0.12 unweighed"),
        (zen(), "127.0.1.2", "127.0.1.2 unweighed"),
        // several count once, the heaviest, wherever it stands
        (zen(), "127.0.0.10 127.0.0.4", "127.0.0.4 10"),
        (zen(), "127.0.0.4 127.0.0.10", "127.0.0.4 10"),
        (zen(), "127.0.0.12 127.0.0.10", "127.0.0.10 7"),
        (zen(), "127.0.0.10 127.0.0.12", "127.0.0.10 7"),
        (dnswl(), "127.0.5.1", "127.0.5.1 -2"),
        (dnswl(), "127.0.5.3", "127.0.5.3 -4"),
        (dnswl(), "127.0.2.1 127.0.5.3 127.0.9.0", "127.0.5.3 -4"),
        (surbl(), "127.0.0.8", "127.0.0.8 6"),
        (surbl(), "127.0.0.216", "127.0.0.216 6"),
        (surbl(), "127.0.0.192", "127.0.0.192 5"),
        (surbl(), "127.0.0.4", "127.0.0.4 unweighed"),
    ] {
        assert_eq!(word(&list, answers), wanted, "{answers}");
    }
}

#[test]
fn what_is_no_answer_about_the_address_counts_for_nothing() {
    for (list, answers, wanted) in [
        (zen(), "127.255.255.252", "127.255.255.252 error"),
        (zen(), "127.255.255.254", "127.255.255.254 error"),
        (zen(), "127.255.255.0", "127.255.255.0 error"),
        (zen(), "127.255.254.2", "127.255.254.2 unweighed"),
        // one error spoils all
        (zen(), "127.0.0.2 127.255.255.255", "127.255.255.255 error"),
        // a parked domain
        (zen(), "192.0.2.80", "192.0.2.80 error"),
        (zen(), "126.255.255.255", "126.255.255.255 error"),
        (zen(), "128.0.0.0", "128.0.0.0 error"),
        (zen(), "::1", "::1 error"),
        (zen(), "127.0.0.2 192.0.2.80", "192.0.2.80 error"),
        // .255 is an error of allow lists only
        (dnswl(), "127.0.0.255", "127.0.0.255 error"),
        (mk(ListKind::Block, &[(codes("127.0.0.255"), 1.0)]), "127.0.0.255", "127.0.0.255 1"),
        // bit 1 is one of lists in bits only
        (surbl(), "127.0.0.1", "127.0.0.1 error"),
        (surbl(), "127.0.0.9", "127.0.0.9 error"),
        (mk(ListKind::Block, &[(codes("127.0.0.3"), 1.0)]), "127.0.0.3", "127.0.0.3 1"),
    ] {
        assert_eq!(word(&list, answers), wanted, "{answers}");
    }
}

#[test]
fn names_are_those_of_the_rfc() {
    for (client, wanted) in [
        ("192.0.2.99", "99.2.0.192"),
        ("::ffff:192.0.2.99", "99.2.0.192"),
        ("0.0.0.0", "0.0.0.0"),
        // RFC 5782 section 2.4
        ("2001:db8:1:2:3:4:567:89ab", "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"),
    ] {
        assert_eq!(reversed(client.parse().unwrap()), wanted, "{client}");
    }
}

#[test]
fn codes_are_read_or_their_mistake_is_named() {
    assert_eq!(ListAnswers::read_codes("127.0.0.2 - 127.0.0.9").unwrap().1, Ipv4Addr::new(127, 0, 0, 9));
    for (text, wanted) in [
        ("", "write 127.0.0.2"),
        ("127.0.0", "write 127.0.0.2"),
        ("127.0.0.2-", "write 127.0.0.2"),
        ("10.0.0.1", "within 127.0.0.0/8"),
        ("127.0.0.2-128.0.0.1", "within 127.0.0.0/8"),
        ("127.0.0.9-127.0.0.2", "must not be above the last"),
    ] {
        assert!(ListAnswers::read_codes(text).unwrap_err().contains(wanted), "{text}");
    }
}

proptest! {
    #[test]
    fn a_name_leads_back_to_its_address(bits: u128, v4: bool) {
        let client: IpAddr =
            if v4 { Ipv4Addr::from(bits as u32).into() } else { std::net::Ipv6Addr::from(bits).to_canonical() };
        let name = reversed(client);
        let labels: Vec<&str> = name.rsplit('.').collect();
        let back: IpAddr = match client {
            IpAddr::V4(_) => labels.join(".").parse().unwrap(),
            IpAddr::V6(_) => {
                prop_assert_eq!(labels.len(), 32);
                std::net::Ipv6Addr::from(u128::from_str_radix(&labels.concat(), 16).unwrap()).into()
            }
        };
        prop_assert_eq!(back, client);
        prop_assert!(name.len() <= 63);
    }

    #[test]
    fn the_order_of_answers_changes_no_score(
        mut answers in prop::collection::vec(any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(0x7f00_0000 | bits & 0x00ff_ffff))), 0..6),
        allow: bool,
    ) {
        let list = if allow { dnswl() } else { surbl() };
        let weight = |answers: &[IpAddr]| match list.word(answers) {
            ListWord::Listed { score, .. } => Some(score),
            ListWord::NotListed | ListWord::Unweighed { .. } => Some(0.0),
            ListWord::Error { .. } => None,
        };
        let forward = weight(&answers);
        answers.reverse();
        prop_assert_eq!(weight(&answers), forward);
        // no answer weighs more than the heaviest that was named, and none has the other sign
        if let Some(score) = forward {
            let possible = if allow { -4.0..=0.0 } else { 0.0..=6.0 };
            prop_assert!(possible.contains(&score), "{score}");
        }
    }
}
