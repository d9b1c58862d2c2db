//! `torwart demo`: the real gateway between scripted senders and a small mail server, told step by step.
//!
//! Everything is on free ports of loopback and nothing is kept. The exit status says whether every step went as
//! it was told.

mod narrator;
mod sender;
mod story;
mod upstream;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use self::narrator::Narrator;
use self::upstream::Upstream;
use crate::gateway::{Gateway, Options};
use crate::process::{self, Service};
use crate::verdict_half::PolicySource;

/// The mail log, kept in memory so that it can be shown at the end.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

/// Some hundred lines; the demo writes ten.
const KEPT_BYTES: usize = 256 * 1024;

/// How long the demo's greylisting makes a new sender wait.
const DELAY_SECONDS: u64 = 3;

pub(crate) async fn run() -> ExitCode {
    let mut narrator = Narrator::new();
    match play(&mut narrator).await {
        Ok(()) if narrator.failed() == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            narrator.expect(false, &format!("the demo went on to its end: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn play(narrator: &mut Narrator) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let log = Kept::default();
    let policy = policy(upstream.address.port());
    let options = Options::on_loopback(PolicySource::Text { name: "demo.yaml".to_owned(), text: policy });
    let gateway = Gateway::start(options, process::registry()?, log.clone()).await?;
    let told = story::tell(narrator, &gateway, &upstream, &log).await;
    gateway.stop().await;
    told
}

/// What a user would write for a mail server of their own.
fn policy(upstream_port: u16) -> String {
    format!(
        "apiVersion: torwart.dev/v1alpha1
kind: MailGateway
metadata: {{name: default}}
spec:
  hostname: mx.demo.example
  postmaster: postmaster@demo.example
---
apiVersion: torwart.dev/v1alpha1
kind: MailDomain
metadata: {{name: demo, namespace: mail}}
spec:
  domains: [demo.example]
  route:
    upstreams: [{{host: 127.0.0.1, port: {upstream_port}}}]
  greylisting:
    mode: Always
    delay: {DELAY_SECONDS}s
"
    )
}

// === impl Kept ===

impl Kept {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
