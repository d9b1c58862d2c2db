//! The dashboards as files: what Grafana wants of them, and what a reader does.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::expression::selectors;
use crate::{names, read};

const FOLDER: &str = "charts/torwart/dashboards";

pub(crate) struct Dashboard {
    pub(crate) name: String,
    pub(crate) json: Value,
}

/// A query of a panel.
pub(crate) struct Query {
    /// For messages: dashboard, panel and letter.
    pub(crate) place: String,
    pub(crate) expression: String,
    pub(crate) legend: String,
    /// As of now, and not over time.
    pub(crate) is_instant: bool,
}

/// All that are shipped.
#[track_caller]
pub(crate) fn all() -> Vec<Dashboard> {
    let parse = |name: String| {
        let text = read(&format!("{FOLDER}/{name}.json"));
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        Dashboard { name, json }
    };
    names(FOLDER, ".json").into_iter().map(parse).collect()
}

impl Dashboard {
    pub(crate) fn panels(&self) -> &[Value] {
        self.json["panels"].as_array().unwrap()
    }

    /// Those that show something.
    pub(crate) fn charts(&self) -> impl Iterator<Item = &Value> {
        self.panels().iter().filter(|panel| panel["type"] != "row")
    }

    pub(crate) fn queries(&self) -> Vec<Query> {
        let of_panel = |panel: &Value| {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            let title = panel["title"].as_str().unwrap_or_default().to_owned();
            targets.into_iter().map(move |target| Query {
                place: format!("{}: {title} ({})", self.name, target["refId"].as_str().unwrap_or("?")),
                expression: target["expr"].as_str().unwrap_or_default().to_owned(),
                legend: target["legendFormat"].as_str().unwrap_or_default().to_owned(),
                is_instant: target["instant"] == true,
            })
        };
        self.charts().flat_map(of_panel).collect()
    }

    pub(crate) fn variables(&self) -> &[Value] {
        self.json["templating"]["list"].as_array().unwrap()
    }
}

/// Every object under the key `datasource`.
fn data_sources<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "datasource" {
                    found.push(value);
                }
                data_sources(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| data_sources(value, found)),
        _ => {}
    }
}

#[test]
fn the_four_dashboards_are_there_under_names_of_their_own() {
    let dashboards = all();
    let names: Vec<&str> = dashboards.iter().map(|dashboard| dashboard.name.as_str()).collect();
    assert_eq!(names, ["edge", "operator", "overview", "verdict"]);
    for dashboard in &dashboards {
        assert_eq!(dashboard.json["uid"], format!("torwart-{}", dashboard.name));
        assert!(dashboard.json["title"].as_str().unwrap().starts_with("Torwart / "));
        // A number of one Grafana's database; an import with it would write over another dashboard there.
        assert!(dashboard.json.get("id").is_none_or(Value::is_null));
    }
}

#[test]
fn each_panel_has_an_id_of_its_own_and_a_place_of_its_own() {
    for dashboard in all() {
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in dashboard.panels() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}: {}", dashboard.name, panel["id"]);
            let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}: {} is wider than the page", dashboard.name, panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{}: {} covers another", dashboard.name, panel["title"]);
                }
            }
        }
    }
}

#[test]
fn each_chart_has_a_title_a_description_a_unit_and_queries() {
    for dashboard in all() {
        for panel in dashboard.charts() {
            let title = panel["title"].as_str().unwrap_or_default();
            let place = format!("{}: {title}", dashboard.name);
            assert!(!title.is_empty(), "{place}");
            assert!(
                panel["description"].as_str().is_some_and(|text| text.len() > 20),
                "{place}: description"
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{place}: unit");
            let queries = panel["targets"].as_array().unwrap();
            assert!(!queries.is_empty(), "{place}");
            let letters: BTreeSet<&str> =
                queries.iter().map(|query| query["refId"].as_str().unwrap()).collect();
            assert_eq!(letters.len(), queries.len(), "{place}: refId");
        }
    }
}

#[test]
fn the_data_source_is_a_variable_and_nowhere_named() {
    for dashboard in all() {
        let first = &dashboard.variables()[0];
        assert_eq!(
            (&first["name"], &first["type"], &first["query"]),
            (&"datasource".into(), &"datasource".into(), &"prometheus".into())
        );
        let mut found = Vec::new();
        data_sources(&dashboard.json, &mut found);
        assert!(found.len() > dashboard.queries().len());
        for source in found {
            assert_eq!(source["uid"], "${datasource}", "{}", dashboard.name);
            assert_eq!(source["type"], "prometheus", "{}", dashboard.name);
        }
    }
}

/// Targets outside of Kubernetes have no label `namespace`: "All" must match them, too, and does as `.*`.
#[test]
fn each_query_keeps_to_the_namespace_and_job_that_are_chosen_and_all_includes_targets_without() {
    for dashboard in all() {
        for name in ["namespace", "job"] {
            let variable = dashboard.variables().iter().find(|variable| variable["name"] == name).unwrap();
            assert_eq!(variable["allValue"], ".*");
            assert_eq!((&variable["includeAll"], &variable["multi"]), (&true.into(), &true.into()));
        }
        for query in dashboard.queries() {
            let selectors = selectors(&query.expression);
            assert!(!selectors.is_empty(), "{}: {}", query.place, query.expression);
            for selector in selectors {
                for name in ["namespace", "job"] {
                    let value = [format!("${name}")];
                    let is_it = selector
                        .matchers
                        .iter()
                        .any(|matcher| matcher.label == name && matcher.values == value);
                    assert!(is_it, "{}: {} without {name}", query.place, selector.name);
                }
            }
            for window in query.expression.split('[').skip(1) {
                let window = window.split(']').next().unwrap();
                assert!(["$__rate_interval", "$__range"].contains(&window), "{}: [{window}]", query.place);
            }
        }
    }
}
