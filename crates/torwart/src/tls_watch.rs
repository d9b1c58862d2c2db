//! Certificates of the channel between edge and verdict: read again when they change, as those of SMTP are.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Looks at the files of certificates now and then until it is dropped.
pub(crate) struct TlsWatch {
    look: Option<Look>,
    _end: DropGuard,
}

/// Reads the files again and takes up what changed, and says whether there was something. Blocks on them.
type Look = Arc<dyn Fn() -> bool + Send + Sync>;

/// As often as the certificates of SMTP are looked at. A projected Secret changes within a minute anyway.
const POLL: Duration = Duration::from_secs(5);

// === impl TlsWatch ===

impl TlsWatch {
    /// Without certificates it does nothing. Must be called inside a tokio runtime.
    pub(crate) fn start(look: Option<impl Fn() -> bool + Send + Sync + 'static>) -> Self {
        let look = look.map(|look| Arc::new(look) as Look);
        let end = CancellationToken::new();
        if let Some(look) = look.clone() {
            let ended = end.clone();
            tokio::spawn(async move {
                while ended.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
                    read_again(Arc::clone(&look)).await;
                }
            });
        }
        Self { look, _end: end.drop_guard() }
    }

    /// Looks now. Returns at once.
    pub(crate) fn reload(&self) {
        if let Some(look) = self.look.clone() {
            tokio::spawn(read_again(look));
        }
    }
}

async fn read_again(look: Look) {
    // What it found it has told the log by itself.
    if let Err(error) = spawn_blocking(move || look()).await {
        tracing::error!(%error, "reading the certificates again failed");
    }
}
