use super::*;

fn mk_mailbox(text: &str) -> Mailbox {
    let (local, domain) = text.rsplit_once('@').unwrap();
    Mailbox::new(local, domain)
}

#[test]
fn a_pattern_matches_what_the_table_says() {
    for (pattern, address, wanted) in [
        ("user@partner.example", "User@Partner.Example", true),
        ("user@partner.example", "user2@partner.example", false),
        ("user@partner.example", "user@mail.partner.example", false),
        ("user@partner.example", "\"user\"@partner.example", true),
        ("user@partner.example", "\"us\\er\"@partner.example", true),
        ("user@partner.example", "user@partner.example.", false),
        ("*@partner.example", "a@partner.example", true),
        ("*@partner.example", "a@xpartner.example", false),
        ("*@partner.example", "a@mail.partner.example", false),
        ("*@*.partner.example", "a@mail.partner.example", true),
        ("*@*.partner.example", "a@b.mail.partner.example", true),
        ("*@*.partner.example", "a@partner.example", false),
        ("*@*.partner.example", "a@.partner.example", false),
        ("*@*.partner.example", "a@xpartner.example", false),
        ("bounce-*@partner.example", "Bounce-123@partner.example", true),
        ("bounce-*@partner.example", "bounce-@partner.example", true),
        ("bounce-*@partner.example", "bounce@partner.example", false),
        ("a*b*c@x.example", "aXbYc@x.example", true),
        ("a*b*c@x.example", "abc@x.example", true),
        ("a*b*c@x.example", "acb@x.example", false),
        ("a*a@x.example", "a@x.example", false),
        ("abuse@*", "abuse@anything.example", true),
        ("abuse@*", "abuse@[192.0.2.1]", true),
        ("*@*", "a@b.example", true),
        ("*@xn--mller-kva.example", "a@Müller.example", true),
        ("*@MÜLLER.example", "a@xn--mller-kva.example", true),
        ("ä@x.example", "Ä@x.example", true),
    ] {
        let parsed = AddressPattern::parse_sender(pattern).unwrap();
        assert_eq!(parsed.matches_sender(Some(&mk_mailbox(address))), wanted, "{pattern} {address}");
        assert!(!parsed.matches_sender(None), "{pattern} and the null sender");
    }
}

#[test]
fn only_the_null_pattern_matches_the_null_sender() {
    let null = AddressPattern::parse_sender("<>").unwrap();
    assert!(null.matches_sender(None));
    assert!(!null.matches_sender(Some(&mk_mailbox("a@b.example"))));
}

#[test]
fn a_bare_local_part_is_a_recipient_in_every_domain_but_no_sender() {
    let pattern = AddressPattern::parse_recipient("abuse").unwrap();
    assert!(pattern.matches(&mk_mailbox("Abuse@example.org")));
    assert!(!pattern.matches(&mk_mailbox("abuse2@example.org")));
    assert!(matches!(AddressPattern::parse_sender("abuse"), Err(InvalidPattern::NoDomain(_))));
}

#[test]
fn what_is_no_pattern_is_refused_with_advice() {
    for (text, message) in [
        ("*", "names no domain; write *@* for every address"),
        ("", "is empty; write an address such as user@example.org, or *@example.org for a whole domain"),
        (
            "partner.example",
            "names no domain; write *@partner.example for a whole domain, or partner.example@* for a local part in every domain",
        ),
        ("@partner.example", "has no local part before the @; write *@partner.example for a whole domain"),
        ("a b@x.example", "has a space or a control character in it"),
        (
            "a@x*.example",
            "has the domain \"x*.example\", which has a * in a place where none can be; only a leading *. is a wildcard",
        ),
        ("a@x.example.", "has the domain \"x.example.\", which ends in a dot; write the domain without it"),
        (
            "a@[192.0.2.1]",
            "has the domain \"[192.0.2.1]\", which is an address literal; only domain names can be mail domains",
        ),
    ] {
        assert_eq!(AddressPattern::parse_sender(text).unwrap_err().to_string(), message, "{text}");
    }
    assert_eq!(AddressPattern::parse_recipient("<>"), Err(InvalidPattern::NullRecipient));
}

#[test]
fn a_pattern_is_shown_in_its_normal_form() {
    for (text, shown) in [
        ("User@X.Example", "user@x.example"),
        ("<>", "<>"),
        ("*@*", "*@*"),
        ("a*@*.x.example", "a*@*.x.example"),
    ] {
        assert_eq!(AddressPattern::parse_sender(text).unwrap().to_string(), shown);
    }
}
