//! `--store` and what belongs to it: everything wrong that can be seen before it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use torwart_verdict::store::{InvalidStoreSpec, RedisOptions};
use torwart_verdict::{Keyring, LONGEST_STORE_TIMEOUT, StoreSpec};

use super::reader::Reader;
use crate::cli::StoreArgs;

/// Where greylisting remembers senders, and how to get in there.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) spec: StoreSpec,
    /// Readable; none: the store keeps a key of its own.
    pub(crate) key_files: Vec<PathBuf>,
    pub(crate) timeout: Duration,
    /// Used with a redis URL only.
    pub(crate) redis: RedisOptions,
}

// === impl StoreConfig ===

impl StoreConfig {
    /// Keeps nothing, on disk or elsewhere.
    pub(crate) fn memory() -> Self {
        let redis = RedisOptions::default();
        Self { spec: StoreSpec::Memory, key_files: Vec::new(), timeout: redis.timeout, redis }
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn store(&mut self, values: &[String], flags: &StoreArgs) -> StoreConfig {
        let spec = match self.once("--store", values).map(|text| parse(text)) {
            None => None,
            Some(Ok(spec)) => Some(spec),
            Some(Err(text)) => {
                self.mistake("--store", text);
                None
            }
        };
        if let Some(spec) = &spec {
            self.store_flags_fit(spec, flags);
        }
        for error in Keyring::from_files(&flags.store_key_file).err().into_iter().flatten() {
            self.mistake("--store-key-file", error.to_string());
        }
        let least = Duration::from_millis(1);
        let timeout = self.within("--store-timeout", &flags.store_timeout, least, LONGEST_STORE_TIMEOUT);
        let redis = RedisOptions {
            username: self.once("--store-username", &flags.store_username).cloned(),
            password_file: self.file("--store-password-file", &flags.store_password_file),
            ca_file: self.file("--store-ca", &flags.store_ca),
            timeout,
        };
        StoreConfig {
            spec: spec.unwrap_or(StoreSpec::Memory),
            key_files: flags.store_key_file.clone(),
            timeout,
            redis,
        }
    }

    /// Flags that would silently do nothing.
    fn store_flags_fit(&mut self, spec: &StoreSpec, flags: &StoreArgs) {
        let encrypted = match spec {
            StoreSpec::Redis(url) => url.is_tls(),
            StoreSpec::Memory | StoreSpec::Redb(_) => {
                let needed = "a redis URL in --store";
                self.needs("--store-username", !flags.store_username.is_empty(), needed, false);
                self.needs("--store-password-file", !flags.store_password_file.is_empty(), needed, false);
                false
            }
        };
        self.needs("--store-ca", !flags.store_ca.is_empty(), "a rediss URL in --store", encrypted);
    }
}

/// Reads the flag and looks whether a file can be where it says. No error repeats `text`: a URL may hold a
/// password.
fn parse(text: &str) -> Result<StoreSpec, String> {
    let spec = text.parse::<StoreSpec>().map_err(|error| match error {
        InvalidStoreSpec::NoPath => "names no file; write redb:/path/to/greylist.redb".to_owned(),
        InvalidStoreSpec::Unknown => "is neither memory, redb:PATH nor a redis URL".to_owned(),
        InvalidStoreSpec::Redis(error) => error.to_string(),
    })?;
    if let StoreSpec::Redb(path) = &spec {
        usable_path(path)?;
    }
    Ok(spec)
}

/// Whether a file of ours can be there.
pub(super) fn usable_path(path: &Path) -> Result<(), String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    if path.is_dir() {
        Err(format!("{} is a directory, but a file of its own is needed", path.display()))
    } else if !directory.is_dir() {
        Err(format!("{} can't be made: {} is not a directory", path.display(), directory.display()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_store_timeout_leaves_an_edge_time_to_hear_that_the_store_has_failed() {
        /// What DNS may take for one question.
        const DNS: Duration = Duration::from_secs(3);
        let turn = LONGEST_STORE_TIMEOUT / 2;
        assert!(turn + LONGEST_STORE_TIMEOUT + DNS < torwart_edge::RECIPIENTS_BUDGET);
    }
}
