//! Reading policy files: `--policy PATH...`, files or directories of `*.yaml` and `*.yml`.

use std::collections::HashSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use torwart_policy::load::SourceFile;

/// What the reader of YAML takes.
const LARGEST_FILE: u64 = torwart_api::yaml::MAX_FILE as u64;
/// Files in all: room for one object per file at the size we promise.
const MOST_FILES: usize = 20_000;

/// Reads everything, in the order of the paths and within a directory by name, each file once, under the first of its
/// names. What can't be read, file or directory, is there with the reason.
pub(crate) fn read(paths: &[PathBuf]) -> Vec<SourceFile> {
    list(paths)
        .into_iter()
        .map(|(path, fault)| SourceFile {
            name: path.display().to_string(),
            content: fault.map_or_else(|| read_text(&path), Err),
        })
        .collect()
}

/// Changes whenever a file is added, removed, replaced or written to; costs no reading.
pub(crate) fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, fault) in list(paths) {
        (&path, fault).hash(&mut hasher);
        // `metadata` follows symbolic links: a mounted ConfigMap changes by a link's new target.
        if let Ok(metadata) = fs::metadata(&path) {
            (metadata.dev(), metadata.ino(), metadata.len()).hash(&mut hasher);
            (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
                .hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The directories whose changes matter. A file's own directory: most programs replace files by renaming.
pub(crate) fn directories(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        let directory = if path.is_dir() {
            path.clone()
        } else {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).to_path_buf()
        };
        if !found.contains(&directory) {
            found.push(directory);
        }
    }
    found
}

/// The files, and what is wrong with a path.
fn list(paths: &[PathBuf]) -> Vec<(PathBuf, Option<String>)> {
    let mut files: Vec<(PathBuf, Option<String>)> = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push((path.clone(), None));
            continue;
        }
        match list_directory(path) {
            Ok(mut found) => {
                found.sort();
                files.extend(found.into_iter().map(|file| (file, None)));
            }
            Err(error) => files.push((path.clone(), Some(error.to_string()))),
        }
    }
    let mut paths = HashSet::new();
    let mut inodes = HashSet::new();
    files.retain(|(path, _)| {
        paths.insert(path.clone())
            && fs::metadata(path).map_or(true, |metadata| inodes.insert((metadata.dev(), metadata.ino())))
    });
    if files.len() > MOST_FILES {
        let why = format!(
            "this file and {} more: no more than {MOST_FILES} are read",
            files.len() - MOST_FILES - 1
        );
        files.truncate(MOST_FILES + 1);
        if let Some((_, fault)) = files.last_mut() {
            *fault = Some(why);
        }
    }
    files
}

fn list_directory(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && !path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// A named pipe that came in the place of a file is opened at once (open(2), O_NONBLOCK), not when somebody writes to it.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn read_text(path: &Path) -> Result<String, String> {
    let regular = |metadata: Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err("is no regular file".to_owned()),
    };
    let said = |error: io::Error| error.to_string();
    fs::metadata(path).map_err(said).and_then(regular)?;
    let file = open(path).map_err(said)?;
    // What was looked at and what was opened may be two.
    file.metadata().map_err(said).and_then(regular)?;
    let mut text = String::new();
    let read = file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(said)?;
    if read as u64 > LARGEST_FILE {
        return Err(format!("is larger than {} MiB", LARGEST_FILE >> 20));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[SourceFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect()
    }

    #[test]
    fn a_directory_gives_its_yaml_files_by_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        fs::create_dir(directory.path().join("more.yaml")).unwrap();
        let paths = [directory.path().to_path_buf(), directory.path().join("b.yaml")];
        assert_eq!(names(&read(&paths)), ["a.yml", "b.yaml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_spoils_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("good.yaml"), "a: 1").unwrap();
        fs::write(directory.path().join("latin.yaml"), b"a: \xe4").unwrap();
        let files = read(&[directory.path().to_path_buf(), directory.path().join("missing.yaml")]);
        assert_eq!(names(&files), ["good.yaml", "latin.yaml", "missing.yaml"]);
        assert_eq!(files.iter().map(|file| file.content.is_ok()).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_never_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::os::unix::fs::symlink("pipe.yaml", directory.path().join("a.yaml")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", directory.path().join("zero.yaml")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket.yaml")).unwrap();
        fs::write(directory.path().join("good.yaml"), "a: 1").unwrap();
        let files = read(&[directory.path().to_path_buf()]);
        assert_eq!(names(&files), ["a.yaml", "good.yaml", "socket.yaml", "zero.yaml"]);
        let refused = Err("is no regular file".to_owned());
        for file in files {
            assert_eq!(file.content == refused, !file.name.ends_with("good.yaml"), "{}", file.name);
        }
        assert_eq!(read(&[pipe])[0].content, refused);
    }

    #[test]
    fn a_pipe_that_comes_between_looking_and_opening_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(!open(&pipe).unwrap().metadata().unwrap().is_file());
    }

    #[test]
    fn a_file_larger_than_the_largest_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large.yaml");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&[path])[0].content, Err("is larger than 16 MiB".to_owned()));
    }

    #[test]
    fn a_file_with_two_names_is_read_once_under_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("b.yaml"), "a: 1").unwrap();
        fs::write(at("c.yaml"), "a: 1").unwrap();
        std::os::unix::fs::symlink("b.yaml", at("a.yaml")).unwrap();
        fs::hard_link(at("c.yaml"), at("d.yaml")).unwrap();
        let again = directory.path().join("../").join(directory.path().file_name().unwrap());
        let files = read(&[directory.path().to_path_buf(), again, at("d.yaml")]);
        assert_eq!(names(&files), ["a.yaml", "c.yaml"]);
        assert!(files.iter().all(|file| file.content.is_ok()));
    }

    #[test]
    fn every_kind_of_change_changes_the_fingerprint() {
        let directory = tempfile::tempdir().unwrap();
        let paths = [directory.path().to_path_buf()];
        let file = directory.path().join("a.yaml");
        let mut last = fingerprint(&paths);
        let mut changed = |what: &str| {
            let now = fingerprint(&paths);
            assert_ne!(now, last, "{what}");
            last = now;
        };
        fs::write(&file, "a: 1").unwrap();
        changed("a new file");
        fs::write(&file, "a: 10").unwrap();
        changed("a longer file");
        fs::write(directory.path().join("other"), "a: 20").unwrap();
        fs::rename(directory.path().join("other"), &file).unwrap();
        changed("a file replaced by one of the same size");
        fs::remove_file(&file).unwrap();
        changed("a file removed");
    }

    #[test]
    fn a_mounted_config_map_changes_by_its_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..1", "a: 1"), ("..2", "a: 2")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("policy.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/policy.yaml", at("policy.yaml")).unwrap();
        let paths = [directory.path().to_path_buf()];
        let before = fingerprint(&paths);
        std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_ne!(fingerprint(&paths), before);
        assert_eq!(read(&paths)[0].content.as_deref(), Ok("a: 2"));
    }

    #[test]
    fn the_directory_of_a_bare_file_name_is_the_current_one() {
        assert_eq!(directories(&[PathBuf::from("policy.yaml")]), [PathBuf::from(".")]);
    }
}
