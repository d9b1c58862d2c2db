//! How long 10,000 MailDomains take: from text, from objects, and again with one changed.
//!
//! `cargo run --release -p torwart-policy --example compile_10000`

use std::time::Instant;

use torwart_policy::compile;
use torwart_policy::inputs::Inputs;
use torwart_policy::load::{SourceFile, compile_files};

const OBJECTS: usize = 10_000;

fn text(changed: bool) -> String {
    let mut text = "apiVersion: torwart.dev/v1alpha1\nkind: MailGateway\nmetadata: {name: default}\n\
                    spec: {hostname: mx.example.net}\n"
        .to_owned();
    for index in 0..OBJECTS {
        let delay = if changed && index == 0 { "6m" } else { "5m" };
        text.push_str(&format!(
            "---\napiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {{name: d{index}, namespace: mail}}\n\
             spec:\n  domains: [d{index}.example, \"*.d{index}.example\"]\n  route:\n    upstreams:\n      \
             - {{host: mail{}.example.net, port: 25}}\n  greylisting: {{mode: Always, delay: {delay}}}\n  \
             ipRanges:\n    - {{name: office, cidrs: [192.0.2.0/24], action: Allow}}\n  \
             senders: {{deny: [{{pattern: \"*@spam.example\"}}]}}\n",
            index % 100
        ));
    }
    text
}

#[allow(clippy::disallowed_methods)] // It measures time.
fn main() {
    let file = |changed| [SourceFile { name: "all.yaml".to_owned(), content: Ok(text(changed)) }];
    let (before, after) = (file(false), file(true));

    let start = Instant::now();
    let first = compile_files(&before, None, &[], 0);
    println!("from text: {} ms, {} findings", start.elapsed().as_millis(), first.findings.len());

    let start = Instant::now();
    let second = compile_files(&after, first.compilation.snapshot.clone(), &[], 0);
    println!("from text, one changed: {} ms", start.elapsed().as_millis());

    let Some(snapshot) = second.compilation.snapshot else {
        return;
    };
    let objects = snapshot
        .domains
        .values()
        .map(|domain| torwart_api::Manifest::MailDomain((**domain).clone()))
        .chain([torwart_api::Manifest::MailGateway((*snapshot.gateway).clone())])
        .map(Into::into)
        .collect();
    let inputs = Inputs { objects, last: Some(snapshot), ..Inputs::default() };
    let start = Instant::now();
    let compilation = compile(&inputs);
    let domains = compilation.policy.map(|policy| policy.domains.len()).unwrap_or_default();
    println!("compile alone, against the last: {} ms, {domains} mail domains", start.elapsed().as_millis());
}
