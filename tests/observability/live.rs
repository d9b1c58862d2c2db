//! A real Prometheus reads a loaded installation: every panel of every dashboard has something to show, and every alert
//! can be evaluated.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use torwart_tests::cluster::Installation;
use torwart_tests::{Part, Prometheus, Target, endpoint, root, tool};

use crate::dashboards::{self, Dashboard, Query};
use crate::expression::legend_labels;
use crate::rig::Rig;

/// What stays at 0 here, with the reason. It must be there all the same.
const STILL: [(&str, &str); 7] = [
    ("edge: Lines of the mail log lost (A)", "the test reads all lines"),
    ("edge: Reports lost (B)", "takes a verdict that is silent for 5 s"),
    ("operator: Failed plans (A)", "nothing refuses the operator's writes"),
    ("operator: Writes that failed (A)", "nothing refuses the operator's writes"),
    ("edge: Processor (A)", "whole seconds are counted, and there are not that many"),
    ("operator: Processor (A)", "whole seconds are counted, and there are not that many"),
    ("verdict: Processor (A)", "whole seconds are counted, and there are not that many"),
];
/// In which all must have been seen.
const LIMIT: Duration = Duration::from_secs(90);
/// As Grafana takes it: four times the interval of reading.
const RATE_INTERVAL: &str = "4s";

/// An operator at an API server, if there is one.
struct Operator {
    part: Part,
    installation: Installation,
    domains: usize,
}

impl Operator {
    #[track_caller]
    fn start() -> Option<Self> {
        let installation = Installation::new()?;
        installation.api.apply(&installation.gateway_manifest(&json!({})));
        let part = installation.operator().start();
        Some(Self { part, installation, domains: 0 })
    }

    /// Changes the policy.
    #[track_caller]
    fn work(&mut self) {
        self.domains += 1;
        let domain = format!("d{}.example", self.domains);
        let installation = &self.installation;
        installation.api.apply(&installation.domain_manifest("one", &[&domain], endpoint()));
    }
}

/// A dashboard's queries with the choice of all that its variables offer, as Grafana would put it.
fn chosen(dashboard: &Dashboard, prometheus: &Prometheus, began: f64) -> Option<Vec<Query>> {
    let mut choice: Vec<(String, String)> = Vec::new();
    for variable in dashboard.variables().iter().filter(|variable| variable["type"] == "query") {
        let name = format!("${}", variable["name"].as_str().unwrap());
        let query = variable["query"]["query"].as_str().unwrap();
        let query = choice.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
        let inner = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')).unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        let values = prometheus.label_values(selector, label);
        if values.is_empty() {
            return None;
        }
        choice.push((name, format!("({})", values.join("|"))));
    }
    assert_eq!(choice.len(), 2, "{}", dashboard.name);
    let range = format!("{}s", (now() - began).ceil().max(1.0));
    choice.push(("$__rate_interval".to_owned(), RATE_INTERVAL.to_owned()));
    choice.push(("$__range".to_owned(), range));
    let mut queries = dashboard.queries();
    for query in &mut queries {
        for (name, value) in &choice {
            query.expression = query.expression.replace(name, value);
        }
        assert!(!query.expression.contains('$'), "{}: {}", query.place, query.expression);
    }
    Some(queries)
}

/// What a query lacks, if it lacks something.
fn lacks(query: &Query, prometheus: &Prometheus, began: f64) -> Option<String> {
    let found = if query.is_instant {
        prometheus.query(&query.expression)
    } else {
        prometheus.query_range(&query.expression, began, now())
    };
    let is_still = STILL.iter().any(|(place, _)| *place == query.place);
    for series in &found {
        for label in legend_labels(&query.legend) {
            let value = series.labels.get(&label).map_or("", String::as_str);
            assert!(!value.is_empty(), "{}: a series without {label}: {:?}", query.place, series.labels);
        }
    }
    let is_enough = found.iter().any(|series| if is_still { series.is_something() } else { series.moves() });
    (!is_enough).then(|| format!("{}: {} has {} series", query.place, query.expression, found.len()))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The script that draws the picture in the README draws each panel of the Overview.
#[track_caller]
fn can_be_drawn(prometheus: &Prometheus, began: f64) {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("overview.svg").display().to_string();
    let script = root().join("tests/dashboards/render").display().to_string();
    let (url, range) = (prometheus.url(), format!("{:.0}", (now() - began).ceil()));
    let output = tool(
        "python3",
        &[&script, "--prometheus", &url, "--seconds", &range, "--load", "a & b", "--out", &picture],
    );
    assert_eq!(output.code, 0, "{}", output.text);
    let drawn = std::fs::read_to_string(&picture).unwrap();
    assert!(drawn.contains("Load: a &amp; b."), "what was sent");
    assert!(drawn.contains("Not a screenshot of Grafana."));
    assert!(!drawn.contains("No data"));
    let overview = dashboards::all().into_iter().find(|dashboard| dashboard.name == "overview").unwrap();
    for panel in overview.panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(drawn.contains(&format!("{title}</text>")), "{title}");
    }
}

#[test]
fn each_panel_of_a_loaded_gateway_has_data_and_each_alert_can_be_evaluated() {
    let mut operator = Operator::start();
    let mut rig = Rig::start();
    let mut targets = rig.targets();
    targets.extend(operator.iter().map(|operator| -> Target { ("torwart-operator", operator.part.admin) }));
    let prometheus = Prometheus::start(&targets);
    let (began, end) = (now(), Instant::now() + LIMIT);
    let dashboards = dashboards::all();
    for (place, _) in STILL {
        let mut queries = dashboards.iter().flat_map(Dashboard::queries);
        assert!(queries.any(|query| query.place == place), "{place}: no dashboard has this query");
    }
    let has_operator = operator.is_some();
    let looked_at = || dashboards.iter().filter(|dashboard| dashboard.name != "operator" || has_operator);
    let mut missing;
    loop {
        // A series that comes with its first event has moved when the second is read.
        for _ in 0..3 {
            rig.mail();
            prometheus.wait_read();
        }
        rig.trouble();
        prometheus.wait_read();
        rig.verdicts_die();
        if let Some(operator) = &mut operator {
            operator.work();
        }
        prometheus.wait_read();
        missing = Vec::new();
        for dashboard in looked_at() {
            match chosen(dashboard, &prometheus, began) {
                Some(queries) => {
                    missing.extend(queries.iter().filter_map(|query| lacks(query, &prometheus, began)));
                }
                None => missing.push(format!("{}: its variables offer nothing", dashboard.name)),
            }
        }
        let rules = prometheus.rules();
        assert!(rules.len() >= 20, "{rules:?}");
        missing.extend(rules.iter().filter(|rule| rule.health != "ok").map(|rule| format!("{rule:?}")));
        if missing.is_empty() {
            break;
        }
        println!("after {:.0} s there lacks:\n{}", now() - began, missing.join("\n"));
        assert!(Instant::now() < end, "in {LIMIT:?} there was never:\n{}", missing.join("\n"));
    }
    can_be_drawn(&prometheus, began);
    if !has_operator {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "NOT RUN: the queries of the dashboard operator.json (no cluster is named)");
    }
}
