//! How operator and follower reach the API server.

use std::time::Duration;

use kube::Config;
use kube::config::InferConfigError;

/// A connection within a cluster takes milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// By what the process has: `KUBECONFIG`, or the files of a pod's ServiceAccount. Connects to nothing.
pub(crate) async fn config() -> Result<Config, InferConfigError> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(CONNECT_LIMIT);
    // Whoever waits here knows for how long it may, and what to do instead.
    config.default_retry = false;
    Ok(config)
}
