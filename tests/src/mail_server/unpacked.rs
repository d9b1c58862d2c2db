//! A program of a Debian package that cannot be installed here, since one machine has one mail server.
//!
//! `tests/run --install` unpacks such packages into folders of their own. A program of one runs in a mount namespace of
//! its own: its root is the machine's, with the package's files and the test's own laid over it in memory. So it finds
//! its users, its configuration and its helpers where Debian puts them, and the machine has none of that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The folder of one instance: it is in the same place inside and outside.
pub(super) struct Unpacked {
    folder: TempDir,
    package: PathBuf,
}

/// A user that exists inside only. Its group has the same name and number.
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) id: u32,
}

/// The first argument is the folder, the second the package's, the rest the command.
const SCRIPT: &str = r#"
folder=$1 package=$2
shift 2
mount -t tmpfs -o mode=755 none "$folder/space"
cd "$folder/space"
mkdir upper work root
cp -a "$package/." "$folder/layer/." upper/
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount --rbind /dev root/dev
mount --rbind /proc root/proc
mount --bind "$folder" "root$folder"
exec chroot root "$@"
"#;

// === impl Unpacked ===

impl Unpacked {
    #[track_caller]
    pub(super) fn new(package: &str, users: &[User]) -> Self {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache"))).unwrap();
        let package = cache.join("torwart-tests/debs").join(package);
        assert!(package.is_dir(), "{} is not there: tests/run --install unpacks it", package.display());
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("space")).unwrap();
        let unpacked = Self { folder, package };
        let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
        let mut group = fs::read_to_string("/etc/group").unwrap();
        for User { name, id } in users {
            passwd.push_str(&format!("{name}:x:{id}:{id}::/nonexistent:/usr/sbin/nologin\n"));
            group.push_str(&format!("{name}:x:{id}:\n"));
        }
        unpacked.write("etc/passwd", &passwd);
        unpacked.write("etc/group", &group);
        unpacked
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file that is seen inside only; its path is below the root.
    pub(super) fn write(&self, path: &str, text: &str) {
        let file = self.layer(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// A folder that is seen inside only.
    pub(super) fn create_folder(&self, path: &str, mode: u32) {
        let folder = self.layer(path);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn layer(&self, path: &str) -> PathBuf {
        self.folder().join("layer").join(path)
    }

    /// Runs a program inside. The process that this starts becomes the program.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", SCRIPT, "sh"]);
        command.arg(self.folder()).arg(&self.package).arg(program);
        command
    }
}
