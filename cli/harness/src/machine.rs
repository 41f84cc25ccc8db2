//! A Debian of its own in a directory, whose processes share nothing with this one's but the kernel and the network.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Debian in a directory; what runs there has mounts of its own.
pub struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// A machine with what a base's tar has.
    #[track_caller]
    pub fn of(base: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut unpack = Command::new("tar");
        unpack.args(["--numeric-owner", "-xf"]).arg(base).arg("-C").arg(dir.path());
        let ran = unpack.stdin(Stdio::null()).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Self { dir }
    }

    /// Where a path of the machine is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// A script on the machine, as a user.
    pub fn command(&self, user: &str, script: &str) -> Command {
        // Not chroot(2), below which the kernel allows no user namespaces.
        let mounts = "mount --make-rprivate / && mount --bind \"$0\" \"$0\" && cd \"$0\" && mount -t proc proc proc && \
                      mount --rbind /dev dev && mount --rbind /sys sys && mkdir -p old && pivot_root . old && umount -l old && \
                      exec setpriv --reuid \"$1\" --regid \"$1\" --init-groups sh -ec \"$2\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", mounts]).arg(self.dir.path()).args([user, script]).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/tmp").env("LANG", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}
