//! Every metric that is looked at is one that the code has.

use std::collections::BTreeSet;

use torwart_tests::sources;

use crate::{names, read};

/// What a histogram adds to its name.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The words that begin with `torwart_`.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("torwart_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_in_dashboards_and_alerts_is_one_that_the_code_has() {
    let code = sources(&["crates"]);
    let has = |name: &str| code.contains(&format!("\"{name}\""));
    let dashboards = names("charts/torwart/dashboards", ".json");
    let pages = dashboards.iter().map(|name| format!("charts/torwart/dashboards/{name}.json"));
    let mut seen = 0;
    for page in pages.chain(["charts/torwart/alerts/torwart.yaml".to_owned()]) {
        for metric in metrics(&read(&page)) {
            let plain = OF_HISTOGRAMS.iter().find_map(|end| metric.strip_suffix(end));
            let is_there = has(&metric) || plain.is_some_and(has);
            assert!(is_there, "{page}: no crate has a metric {metric}");
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} metrics were found: this test tests nothing");
    assert!(!has("torwart_no_such_metric"));
}
