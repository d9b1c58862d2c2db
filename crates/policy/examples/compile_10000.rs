//! How long 10,000 MailDomains take: from text, from objects, again with one changed, if all of them quarrel, and from
//! what is published.
//!
//! `cargo run --release -p torwart-policy --example compile_10000`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use torwart_api::Manifest;
use torwart_policy::compile::State;
use torwart_policy::inputs::Inputs;
use torwart_policy::load::{SourceFile, compile_files};
use torwart_policy::publish::{Chunk, FORMAT_WRITTEN, Index, assemble, chunks};
use torwart_policy::{Snapshot, compile};

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
    publish(&snapshot);
    quarrel(&snapshot);
    let objects = snapshot
        .domains
        .values()
        .map(|domain| Manifest::MailDomain((**domain).clone()))
        .chain([Manifest::MailGateway((*snapshot.gateway).clone())])
        .map(Into::into)
        .collect();
    let inputs = Inputs { objects, last: Some(snapshot), ..Inputs::default() };
    let start = Instant::now();
    let compilation = compile(&inputs);
    let domains = compilation.policy.map(|policy| policy.domains.len()).unwrap_or_default();
    println!("compile alone, against the last: {} ms, {domains} mail domains", start.elapsed().as_millis());
}

/// The snapshot through a cluster: what the operator does with it, and what each reader does.
#[allow(clippy::disallowed_methods)] // It measures time.
fn publish(snapshot: &Arc<Snapshot>) {
    let start = Instant::now();
    let pieces = chunks(snapshot);
    println!("chunks: {} ms, {} slots", start.elapsed().as_millis(), pieces.len());
    let index = Index {
        sequence: 1,
        format_version: FORMAT_WRITTEN,
        revision: snapshot.revision.clone(),
        slots: pieces.iter().map(|(slot, chunk)| (*slot, chunk.hash.clone())).collect(),
    };
    let start = Instant::now();
    let bytes: Vec<_> = pieces.values().map(|chunk| (chunk.hash.clone(), chunk.compress())).collect();
    let (text, packed): (usize, usize) = pieces
        .values()
        .zip(&bytes)
        .fold((0, 0), |(text, packed), (chunk, (_, bytes))| (text + chunk.text.len(), packed + bytes.len()));
    println!("compress: {} ms, {text} bytes to {packed}", start.elapsed().as_millis());
    let start = Instant::now();
    let read: BTreeMap<_, _> = bytes
        .iter()
        .filter_map(|(hash, bytes)| Some((hash.clone(), Chunk::decompress(hash, bytes).ok()?)))
        .collect();
    println!("decompress and verify: {} ms", start.elapsed().as_millis());
    let start = Instant::now();
    let Ok(assembled) = assemble(&index, &read, Some(snapshot)) else {
        return;
    };
    println!("assemble: {} ms", start.elapsed().as_millis());
    let start = Instant::now();
    let policy = assembled.snapshot.compile(&[], 0);
    let domains = policy.map(|policy| policy.domains.len()).unwrap_or_default();
    println!("compile what was published: {} ms, {domains} mail domains", start.elapsed().as_millis());
}

/// Every object claims one more name, the same as all others; then each claims the name that the next one has.
#[allow(clippy::disallowed_methods)] // It measures time.
fn quarrel(snapshot: &Arc<Snapshot>) {
    let gateway = Manifest::MailGateway((*snapshot.gateway).clone());
    for (what, next) in [("claim one more common name", false), ("claim the next one's name", true)] {
        let objects = snapshot.domains.values().map(|domain| {
            let mut domain = (**domain).clone();
            let number: usize = domain.metadata.name.trim_start_matches('d').parse().unwrap_or_default();
            let other = if next { format!("d{}.example", number + 1) } else { "common.example".to_owned() };
            domain.spec.domains.push(other);
            Manifest::MailDomain(domain).into()
        });
        let objects = objects.chain([gateway.clone().into()]).collect();
        let inputs = Inputs { objects, last: Some(snapshot.clone()), ..Inputs::default() };
        let start = Instant::now();
        let compilation = compile(&inputs);
        let kept = compilation.outcomes.values().filter(|outcome| outcome.state == State::Kept).count();
        println!("all {OBJECTS} {what}: {} ms, {kept} keep what they had", start.elapsed().as_millis());
    }
}
