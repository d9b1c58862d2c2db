//! What the next run must know of this one: the accepted policy, beside the store that outlives both or in a file of
//! its own.
//!
//! Without it a restart would forget which mail domains have just left the policy, what an object was before somebody
//! broke it, and that most domains are gone at once.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use torwart_policy::Snapshot;
use torwart_verdict::StoreSpec;

/// The file that holds the last accepted policy. It names mail domains and upstreams, and no secret.
#[derive(Debug)]
pub(crate) struct PolicyState {
    path: PathBuf,
    /// What it holds, if this process has read or written it.
    written: Option<String>,
}

/// Ten times what 10,000 MailDomains take: anything larger is not ours.
const MOST: u64 = 256 << 20;

// === impl PolicyState ===

impl PolicyState {
    /// `PATH.policy.json` beside a store at `PATH`; `None` for a store that forgets, or is on no disk of ours.
    pub(crate) fn beside(store: &StoreSpec) -> Option<Self> {
        match store {
            StoreSpec::Memory | StoreSpec::Redis(_) => None,
            StoreSpec::Redb(store) => {
                let mut path = store.clone().into_os_string();
                path.push(".policy.json");
                Some(Self::at(path.into()))
            }
        }
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// What an earlier run left. A file that can't be used is reported and otherwise as good as none.
    pub(crate) fn read(&mut self) -> Option<Snapshot> {
        let path = self.path.display();
        let text = match read_text(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%path, %error, "the policy of the last run can't be read; starting without it");
                return None;
            }
        };
        match Snapshot::from_json(&text) {
            Ok(snapshot) => {
                self.written = Some(text);
                Some(snapshot)
            }
            Err(error) => {
                tracing::warn!(%path, %error, "the policy of the last run can't be used; starting without it");
                None
            }
        }
    }

    /// Replaces the file in one step: whatever happens, the old one or the new one is there. Does nothing if it says
    /// the same already.
    pub(crate) fn write(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let text = snapshot.to_json()?;
        if self.written.as_ref() == Some(&text) {
            return Ok(());
        }
        replace(&self.path, text.as_bytes())?;
        self.written = Some(text);
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other("it is larger than any policy"));
    }
    Ok(text)
}

/// In one step: whatever happens, the old content or the new one is there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| rename(&new, path));
    if written.is_err() {
        let _ = remove_file(&new);
    }
    written?;
    // The name is on disk only when its directory is.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use torwart_policy::load::{SourceFile, compile_files};

    fn snapshot(hostname: &str) -> Snapshot {
        let text = format!(
            "{{apiVersion: torwart.dev/v1alpha1, kind: MailGateway, metadata: {{name: default}}, spec: {{hostname: {hostname}}}}}"
        );
        let file = SourceFile { name: "a.yaml".to_owned(), content: Ok(text) };
        (*compile_files(&[file], None, &[], 0).compilation.snapshot.unwrap()).clone()
    }

    fn state(folder: &tempfile::TempDir) -> PolicyState {
        PolicyState::beside(&StoreSpec::Redb(folder.path().join("g.redb"))).unwrap()
    }

    #[test]
    fn what_is_written_is_read_by_the_next_run_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        assert!(state(&folder).read().is_none());
        for hostname in ["mx.example.net", "mx2.example.net"] {
            // What a run that was killed left behind is in nobody's way.
            std::fs::write(folder.path().join("g.redb.policy.json.new"), "half").unwrap();
            state(&folder).write(&snapshot(hostname)).unwrap();
            let path = folder.path().join("g.redb.policy.json");
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(state(&folder).read().unwrap().revision, snapshot(hostname).revision);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_that_is_broken_newer_or_no_text_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.redb.policy.json");
        for content in [&b""[..], b"{", b"\xff", br#"{"formatVersion": 99}"#] {
            std::fs::write(&path, content).unwrap();
            assert!(state(&folder).read().is_none());
        }
        state(&folder).write(&snapshot("mx.example.net")).unwrap();
        assert!(state(&folder).read().is_some());
    }

    #[test]
    fn the_same_policy_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(&folder);
        state.write(&snapshot("mx.example.net")).unwrap();
        remove_file(state.path()).unwrap();
        state.write(&snapshot("mx.example.net")).unwrap();
        assert!(!state.path().exists());
    }

    #[test]
    fn a_store_that_forgets_keeps_no_policy() {
        assert!(PolicyState::beside(&StoreSpec::Memory).is_none());
    }
}
