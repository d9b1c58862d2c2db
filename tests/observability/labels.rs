//! Every label, and every value of one, that is looked at is one that the real processes export.

use std::collections::{BTreeMap, BTreeSet};

use torwart_tests::{Metrics, Part, eventually};

use crate::alerts;
use crate::dashboards;
use crate::expression::{Selector, grouping, legend_labels, selectors};
use crate::rig::Rig;

/// What Prometheus itself puts on every series (see the ServiceMonitors of the chart).
const OF_TARGETS: [&str; 3] = ["namespace", "job", "instance"];
/// What a rule puts on its alerts.
const OF_ALERTS: [&str; 1] = ["severity"];

/// The values of each label of each metric. A histogram has three metrics.
#[derive(Debug, Default)]
struct Exported(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exported {
    fn add(&mut self, metrics: &Metrics) {
        for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let labels = self.0.entry(name.to_owned()).or_default();
            // No value of ours holds a quote, nor a comma.
            let written = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            for pair in written.map_or("", |(pairs, _)| pairs).split(',').filter(|pair| !pair.is_empty()) {
                let (label, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                let value = value.strip_suffix('"').unwrap_or_else(|| panic!("{line}"));
                labels.entry(label.to_owned()).or_default().insert(value.to_owned());
            }
        }
    }

    #[track_caller]
    fn labels(&self, metric: &str, place: &str) -> &BTreeMap<String, BTreeSet<String>> {
        self.0.get(metric).unwrap_or_else(|| panic!("{place}: nothing exports {metric}"))
    }

    #[track_caller]
    fn has_label(&self, metric: &str, label: &str, place: &str) {
        let is_there = OF_TARGETS.contains(&label) || self.labels(metric, place).contains_key(label);
        assert!(is_there, "{place}: {metric} has no label {label}");
    }

    #[track_caller]
    fn has_matchers(&self, selector: &Selector, place: &str) {
        let metric = &selector.name;
        let labels = self.labels(metric, place);
        for matcher in selector.matchers.iter().filter(|matcher| !OF_TARGETS.contains(&&*matcher.label)) {
            self.has_label(metric, &matcher.label, place);
            let known = &labels[&matcher.label];
            for value in &matcher.values {
                assert!(
                    known.contains(value),
                    "{place}: {metric} has no {}={value:?}: {known:?}",
                    matcher.label
                );
            }
        }
    }

    /// All that an expression names. What is grouped by must be there in each metric of it.
    #[track_caller]
    fn has_all_of(&self, expression: &str, place: &str) {
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "{place}: {expression}");
        for selector in &selectors {
            self.has_matchers(selector, place);
            for label in grouping(expression) {
                self.has_label(&selector.name, &label, place);
            }
        }
    }

    /// The labels of the result: those it is grouped by, or those of its metric.
    #[track_caller]
    fn result_has(&self, expression: &str, label: &str, place: &str) {
        let groups = grouping(expression);
        if groups.is_empty() {
            self.has_label(&selectors(expression)[0].name, label, place);
        } else {
            assert!(groups.iter().any(|group| group == label), "{place}: {label} is not in the result");
        }
    }
}

/// All of an installation, after some mail and some trouble. An operator exports all its labels before it has reached
/// an API server.
fn exported() -> Exported {
    let mut rig = Rig::start();
    rig.mail();
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("kubeconfig");
    let text = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "x", "user": {"token": "x"}}]}"#;
    std::fs::write(&nowhere, text).unwrap();
    let operator = Part::operator().env("KUBECONFIG", nowhere.display()).launch();
    eventually("the operator's metrics are there", || Metrics::scrape(operator.admin).is_ok());
    let mut exported = Exported::default();
    rig.metrics().iter().chain([&operator.metrics()]).for_each(|metrics| exported.add(metrics));
    exported
}

#[test]
fn every_label_in_dashboards_and_alerts_and_every_value_is_one_that_is_exported() {
    let exported = exported();
    for dashboard in dashboards::all() {
        for query in dashboard.queries() {
            exported.has_all_of(&query.expression, &query.place);
            for label in legend_labels(&query.legend) {
                exported.result_has(&query.expression, &label, &query.place);
            }
        }
        for variable in dashboard.variables() {
            let query = variable["query"]["query"].as_str().unwrap_or_default();
            selectors(query).iter().for_each(|selector| exported.has_matchers(selector, &dashboard.name));
        }
    }
    for alert in alerts::all() {
        exported.has_all_of(&alert.expression, &alert.name);
        for (label, _) in alert.text.match_indices("$labels.").map(|(at, found)| {
            let rest = &alert.text[at + found.len()..];
            rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap())
        }) {
            if !OF_ALERTS.contains(&label) {
                exported.result_has(&alert.expression, label, &alert.name);
            }
        }
    }
}

/// What the page does not list: names of the policy's, told of in words, and a list that has a page of its own.
const NOT_LISTED: [&str; 5] = ["revision", "certificate", "reason", "check", "list"];

#[test]
fn the_page_about_monitoring_has_each_metric_with_its_labels_and_their_values() {
    let page = crate::read("docs/monitoring.md");
    for (metric, labels) in exported().0.iter().filter(|(metric, _)| metric.starts_with("torwart_")) {
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
        let row = page.lines().find(|line| {
            let is_of = |name: &str| line.starts_with(&format!("| `{name}` |"));
            is_of(metric) || plain.is_some_and(is_of)
        });
        let row = row.unwrap_or_else(|| panic!("docs/monitoring.md has no row for {metric}"));
        for (label, values) in labels.iter().filter(|(label, _)| *label != "le") {
            assert!(
                row.contains(&format!("`{label}`: ")),
                "docs/monitoring.md: {metric} has a label {label}"
            );
            for value in values.iter().filter(|_| !NOT_LISTED.contains(&&**label)) {
                assert!(row.contains(&format!("`{value}`")), "docs/monitoring.md: {metric}: {label}={value}");
            }
        }
    }
}

#[test]
fn what_is_not_exported_is_found() {
    let mut exported = Exported::default();
    exported.add(&Metrics::of(
        "torwart_a_total{b=\"c\",d=\"e f\"} 1\ntorwart_a_total{b=\"x\",d=\"e f\"} 1\ntorwart_g 2\n",
    ));
    let fails =
        |expression: &str| std::panic::catch_unwind(|| exported.has_all_of(expression, "here")).is_err();
    for right in [
        "sum by (b, job) (torwart_a_total{b=~\"c|x\", d!=\"e f\"}) > 1",
        "torwart_g{namespace=\"any\"} unless on (instance) torwart_a_total",
    ] {
        assert!(!fails(right), "{right}");
    }
    for wrong in [
        "torwart_b_total",
        "torwart_a_total{b=\"e\"}",
        "torwart_a_total{b=~\"c|y\"}",
        "torwart_a_total{c=\"c\"}",
        "sum by (c) (torwart_a_total)",
        "sum by (b) (torwart_a_total) / sum by (b) (torwart_g)",
    ] {
        assert!(fails(wrong), "{wrong}");
    }
}
