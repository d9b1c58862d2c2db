//! "Did you mean": the nearest of the known names.

/// The known name that `written` was probably meant to be: the same but for its case, or at most two letters (in
/// short names one) off.
pub(super) fn suggestion<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    /// Names are short; a longer text is no misspelt name, and the comparison takes the square of its length.
    const LONGEST: usize = 64;
    if written.chars().count() > LONGEST {
        return None;
    }
    let lower = written.to_lowercase();
    let allowed = if lower.len() < 5 { 1 } else { 2 };
    known
        .iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), *name))
        .filter(|(off, _)| *off <= allowed)
        .min_by_key(|(off, _)| *off)
        .map(|(_, name)| name)
}

/// What to say of a field that is not among the known ones.
pub(super) fn no_such_field(written: &str, known: &[&str]) -> String {
    match suggestion(written, known) {
        Some(meant) => format!("there is no such field; did you mean {meant}?"),
        None => format!("there is no such field; here can be {}", known.join(", ")),
    }
}

/// How many letters must be put in, taken out or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (place, to) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *place;
            left = replaced.min(left + 1).min(diagonal + 1);
            *place = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised() {
        let known = ["upstreams", "tls", "protocol", "softBounce"];
        for (written, meant) in [
            ("upstream", Some("upstreams")),
            ("softbounce", Some("softBounce")),
            ("tsl", None),
            ("tl", Some("tls")),
            ("protokoll", Some("protocol")),
            ("greylisting", None),
        ] {
            assert_eq!(suggestion(written, &known), meant, "{written}");
        }
    }

    #[test]
    fn the_distance_counts_letters() {
        for (a, b, wanted) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
        }
    }
}
