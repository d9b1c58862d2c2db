//! Rules, their tests and their runbooks belong together.

use std::collections::BTreeSet;

use torwart_tests::tool;

use crate::{names, read, root};

const RULES: &str = "charts/torwart/alerts/torwart.yaml";
const TESTS: &str = "tests/observability/rules.yaml";

/// The values of a key, wherever it stands in a YAML file of one key a line.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        line.trim_start().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(": ").map(str::trim)
    })
}

fn alerts(rules: &str) -> BTreeSet<&str> {
    values(rules, "alert").collect()
}

/// Name and text of each alert's rule.
fn rules(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("- alert: ").skip(1).map(|rule| rule.split_once('\n').unwrap())
}

/// A rule as a whole.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) text: String,
}

/// All that are shipped.
pub(crate) fn all() -> Vec<Alert> {
    let file = read(RULES);
    let one = |(name, text): (&str, &str)| {
        let begin = text.find("expr: ").unwrap() + "expr: ".len();
        let ends = ["\n        for: ", "\n        labels:"];
        let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap();
        let expression = text[begin..end].trim_start_matches('|').trim().to_owned();
        Alert { name: name.to_owned(), expression, text: text.to_owned() }
    };
    rules(&file).map(one).collect()
}

#[track_caller]
fn promtool(arguments: &[&str]) {
    let output = tool("promtool", arguments);
    assert_eq!(output.code, 0, "promtool {arguments:?}: {}", output.text);
}

#[test]
fn promtool_takes_the_rules() {
    promtool(&["check", "rules", &root().join(RULES).display().to_string()]);
}

#[test]
fn each_alert_fires_where_it_should_and_not_just_below() {
    promtool(&["test", "rules", &root().join(TESTS).display().to_string()]);
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let (rules, tests) = (read(RULES), read(TESTS));
    let (mut fires, mut is_quiet) = (BTreeSet::new(), BTreeSet::new());
    for case in tests.split("alertname: ").skip(1) {
        let (alert, rest) = case.split_once('\n').unwrap();
        let expected = rest.lines().next().unwrap().trim();
        match expected {
            "exp_alerts: []" => is_quiet.insert(alert),
            "exp_alerts:" => {
                assert!(
                    rest.contains("exp_annotations:"),
                    "{alert}: what a person reads is part of the case"
                );
                fires.insert(alert)
            }
            _ => panic!("{alert}: {expected}"),
        };
    }
    assert_eq!(fires, alerts(&rules));
    assert_eq!(is_quiet, alerts(&rules));
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let rules = read(RULES);
    let runbooks = names("docs/runbooks", ".md");
    let runbooks: BTreeSet<&str> = runbooks.iter().map(String::as_str).collect();
    assert_eq!(runbooks, alerts(&rules));
    for name in runbooks {
        let page = read(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n\n")), "{name}");
        let parts: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(parts, ["What mail experiences meanwhile", "How to find out", "What to do"], "{name}");
        let links = page.split("](").skip(1).filter_map(|link| link.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.starts_with("http")) {
            assert!(root().join("docs/runbooks").join(link).exists(), "{name}: {link} is not there");
        }
    }
}

#[test]
fn each_alert_says_how_urgent_it_is_what_is_wrong_and_where_its_page_is() {
    let text = read(RULES);
    for (name, rule) in rules(&text) {
        let severity = values(rule, "severity").next().unwrap_or_default();
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description"] {
            assert!(
                values(rule, annotation).next().is_some_and(|text| text.len() > 20),
                "{name}: {annotation}"
            );
        }
        let page = format!("https://github.com/torwart-dev/torwart/blob/main/docs/runbooks/{name}.md");
        assert_eq!(values(rule, "runbook_url").next(), Some(page.as_str()), "{name}");
    }
}

#[test]
fn the_page_about_monitoring_lists_each_alert() {
    let (file, page) = (read(RULES), read("docs/monitoring.md"));
    for (name, rule) in rules(&file) {
        let severity = values(rule, "severity").next().unwrap();
        let row = format!("| [{name}](runbooks/{name}.md) | {severity} |");
        assert!(page.contains(&row), "{row}");
    }
}
