//! `--store`: what is wrong with it that can be seen before it is opened.

use std::path::Path;

use torwart_verdict::StoreSpec;
use torwart_verdict::store::InvalidStoreSpec;

/// Reads the flag and looks whether a file can be where it says. No error repeats `text`: a URL may hold a
/// password.
pub(crate) fn parse(text: &str) -> Result<StoreSpec, String> {
    let spec = text.parse::<StoreSpec>().map_err(|error| match error {
        InvalidStoreSpec::NoPath => "names no file; write redb:/path/to/greylist.redb",
        InvalidStoreSpec::Unsupported(_) => "redis is not in this build yet; there are memory and redb:PATH",
        InvalidStoreSpec::Unknown(_) => "is neither memory nor redb:PATH",
    })?;
    if let StoreSpec::Redb(path) = &spec {
        usable_path(path)?;
    }
    Ok(spec)
}

fn usable_path(path: &Path) -> Result<(), String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    if path.is_dir() {
        Err(format!("{} is a directory, but redb needs a file of its own", path.display()))
    } else if !directory.is_dir() {
        Err(format!("{} can't be made: {} is not a directory", path.display(), directory.display()))
    } else {
        Ok(())
    }
}
