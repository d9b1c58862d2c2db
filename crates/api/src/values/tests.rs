use proptest::prelude::*;

use super::*;

fn round<T: FromStr + fmt::Display>(text: &str) -> Result<String, String>
where
    T::Err: fmt::Display,
{
    text.parse::<T>().map(|value| value.to_string()).map_err(|error| error.to_string())
}

#[test]
fn a_duration_is_read_and_written_in_its_normal_form() {
    for (text, wanted) in [
        ("5m", Some("5m")),
        ("48h", Some("48h")),
        ("864h", Some("864h")),
        ("0s", Some("0s")),
        ("0h", Some("0s")),
        ("1h30m", Some("1h30m")),
        ("90m", Some("1h30m")),
        ("1500ms", Some("1s500ms")),
        ("87600h", Some("87600h")),
        ("87600h1ms", None),
        ("99999999999999999999h", None),
        ("", None),
        ("5", None),
        ("m", None),
        ("5 m", None),
        ("-5m", None),
        ("+5m", None),
        ("1.5h", None),
        ("2d", None),
        ("5M", None),
        ("5m3", None),
        ("５m", None),
    ] {
        assert_eq!(round::<Duration>(text).ok().as_deref(), wanted, "{text}");
    }
}

#[test]
fn a_size_is_read_and_written_in_its_normal_form() {
    for (text, wanted) in [
        ("50Mi", Some("50Mi")),
        ("256Ki", Some("256Ki")),
        ("1Gi", Some("1Gi")),
        ("1024Mi", Some("1Gi")),
        ("10M", Some("10M")),
        ("10K", Some("10k")),
        ("1000", Some("1k")),
        ("1001", Some("1001")),
        ("0", Some("0")),
        ("1024Gi", Some("1024Gi")),
        ("1025Gi", None),
        ("99999999999999999999", None),
        ("", None),
        ("Mi", None),
        ("50MB", None),
        ("50 Mi", None),
        ("1.5Mi", None),
        ("-1", None),
    ] {
        assert_eq!(round::<Size>(text).ok().as_deref(), wanted, "{text}");
    }
}

#[test]
fn a_rate_is_read_and_written_in_its_normal_form() {
    for (text, wanted) in [
        ("100/h", Some("100/h")),
        ("30/10m", Some("30/10m")),
        ("30/60m", Some("30/h")),
        ("5/s", Some("5/s")),
        ("", Some("")),
        ("1/24h", Some("1/24h")),
        ("1/25h", None),
        ("1/500ms", None),
        ("0/h", None),
        ("100", None),
        ("/h", None),
        ("100/", None),
        ("100/d", None),
        ("4294967296/h", None),
        ("-1/h", None),
    ] {
        assert_eq!(round::<Rate>(text).ok().as_deref(), wanted, "{text}");
    }
}

#[test]
fn a_network_is_read_and_written_in_its_normal_form() {
    for (text, wanted) in [
        ("192.0.2.0/24", Some("192.0.2.0/24")),
        ("192.0.2.1", Some("192.0.2.1/32")),
        ("0.0.0.0/0", Some("0.0.0.0/0")),
        ("2001:DB8::/32", Some("2001:db8::/32")),
        ("::1", Some("::1/128")),
        ("192.0.2.1/24", None),
        ("192.0.2.0/33", None),
        ("192.0.2.0/", None),
        ("192.0.2.0/+8", None),
        ("192.0.2/24", None),
        ("192.0.2.010/32", None),
        ("[::1]", None),
        ("example.org", None),
    ] {
        assert_eq!(round::<Cidr>(text).ok().as_deref(), wanted, "{text}");
    }
    assert_eq!(
        round::<Cidr>("192.0.2.1/24").unwrap_err(),
        "has bits set behind its prefix; the network is 192.0.2.0/24"
    );
}

#[test]
fn a_time_needs_its_zone() {
    assert_eq!(round::<Time>("2027-01-01T01:00:00+01:00").as_deref(), Ok("2027-01-01T00:00:00Z"));
    for text in ["2027-01-01", "2027-01-01T00:00:00", "tomorrow", ""] {
        assert!(round::<Time>(text).is_err(), "{text}");
    }
    assert_eq!("1970-01-01T00:01:00Z".parse::<Time>().map(Time::unix_seconds), Ok(60));
}

proptest! {
    #[test]
    fn a_normal_form_reads_back_as_itself(milliseconds in 0u64..=315_360_000_000, bytes in 0u64..=1 << 40) {
        let duration: Duration = format!("{milliseconds}ms").parse().unwrap();
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        let size = Size::bytes(bytes);
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn no_text_makes_a_value_panic(text in "\\PC{0,20}") {
        let _ = (text.parse::<Duration>(), text.parse::<Size>(), text.parse::<Rate>());
        let _ = (text.parse::<Cidr>(), text.parse::<Port>(), text.parse::<Time>());
    }
}
