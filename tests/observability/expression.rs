//! As much of PromQL as it takes to say which metrics and labels an expression is about. Whether it is an expression at
//! all, promtool and Prometheus say.

/// A metric with the labels that it is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) matchers: Vec<Matcher>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    /// The alternatives, if it is a pattern.
    pub(crate) values: Vec<String>,
}

/// What our own processes export.
const OURS: [&str; 2] = ["torwart_", "process_"];

/// All selectors of metrics of ours, in their order.
pub(crate) fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some((word, after)) = next_word(rest) {
        rest = after;
        if OURS.iter().any(|prefix| word.starts_with(prefix)) {
            let (matchers, after) = rest.strip_prefix('{').map_or((Vec::new(), rest), matchers);
            rest = after;
            found.push(Selector { name: word.to_owned(), matchers });
        }
    }
    found
}

/// The labels that are named after `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
pub(crate) fn grouping(expression: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut rest = expression;
    while let Some((word, after)) = next_word(rest) {
        rest = after;
        if !["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&word) {
            continue;
        }
        if let Some((list, after)) = rest.trim_start().strip_prefix('(').and_then(|rest| rest.split_once(')'))
        {
            labels.extend(
                list.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()),
            );
            rest = after;
        }
    }
    labels
}

/// `{{label}}` in a legend.
pub(crate) fn legend_labels(legend: &str) -> Vec<String> {
    let after = legend.split("{{").skip(1);
    after.filter_map(|part| part.split_once("}}")).map(|(label, _)| label.trim().to_owned()).collect()
}

/// The next word that is not within quotes, and what follows it.
fn next_word(mut rest: &str) -> Option<(&str, &str)> {
    loop {
        rest = &rest[rest.find(|c: char| c.is_ascii_alphabetic() || c == '"' || c == '\'')?..];
        if !rest.starts_with(['"', '\'']) {
            return Some(word(rest));
        }
        rest = text(rest).1;
    }
}

fn word(rest: &str) -> (&str, &str) {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
    rest.split_at(end)
}

/// What stands in quotes at the beginning, and what follows. Nothing of ours escapes a quote.
fn text(rest: &str) -> (&str, &str) {
    let quote = &rest[..1];
    rest[1..].split_once(quote).unwrap_or_else(|| panic!("a text without end: {rest}"))
}

fn matchers(mut rest: &str) -> (Vec<Matcher>, &str) {
    let mut matchers = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',', '\n']);
        if let Some(after) = rest.strip_prefix('}') {
            return (matchers, after);
        }
        let (label, after) = word(rest);
        assert!(!label.is_empty(), "no label: {rest}");
        let operator = &after[..after.find(['"', '\'']).unwrap()];
        let (value, after) = text(&after[operator.len()..]);
        let values = if operator.contains('~') { value.split('|').collect() } else { vec![value] };
        matchers.push(Matcher {
            label: label.to_owned(),
            values: values.into_iter().map(str::to_owned).collect(),
        });
        rest = after;
    }
}

#[test]
fn selectors_and_groups_of_an_expression_are_found() {
    let expression = "histogram_quantile(0.5, sum by (le, call) (rate(torwart_x_bucket{a=~\"b|c\", d!=\"by (e)\"}[5m]))) \
         / on (job) group_left() process_y - torwart_z > 2 or up{job=\"torwart_q\"}";
    let found = selectors(expression);
    let names: Vec<&str> = found.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["torwart_x_bucket", "process_y", "torwart_z"]);
    let matcher = |label: &str, values: &[&str]| Matcher {
        label: label.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    assert_eq!(found[0].matchers, [matcher("a", &["b", "c"]), matcher("d", &["by (e)"])]);
    assert_eq!(grouping(expression), ["le", "call", "job"]);
    assert_eq!(legend_labels("{{ kind }} and {{result}}"), ["kind", "result"]);
}
