//! What a test program leaves, however it ends, is removed by a process that outlives it.
//!
//! A farm that all tests of a program share is in a static, which Rust never drops, and a killed program drops nothing.
//! So the farms' directories are in one that a shell watches: its standard input ends with the program.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Farms write their workers' process ids into `pids`: killed workers could not remove their control groups.
const CARE: &str = r#"
cat >/dev/null
for attempt in $(seq 100); do
  grep -F " $1/" /proc/mounts | cut -d' ' -f2 | xargs -r umount -l
  for pid in $(cat "$1"/*/pids 2>/dev/null); do
    find /sys/fs/cgroup -depth -type d -name "kiln-$pid-*" -exec rmdir {} +
  done
  rm -rf -- "$1" && exit
  sleep 0.1
done
"#;

struct Caretaker {
    dir: PathBuf,
    /// Its standard input is open as long as this program runs.
    _shell: Child,
}

/// A directory for a farm, removed at the latest after this program ends.
pub fn directory() -> tempfile::TempDir {
    static CARETAKER: OnceLock<Caretaker> = OnceLock::new();
    let caretaker = CARETAKER.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("kiln-tests-").tempdir().unwrap().keep();
        let shell = shell(&dir);
        Caretaker { dir, _shell: shell }
    });
    tempfile::tempdir_in(&caretaker.dir).unwrap()
}

fn shell(dir: &Path) -> Child {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("sh");
    command.args(["-c", CARE, "caretaker"]).arg(dir);
    // In its own process group, so that an interrupt from the terminal does not reach it; nobody waits for the end of
    // its output.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

/// Removes the control groups of killed processes.
pub fn remove_groups(pids: &[u32]) {
    for pid in pids {
        let name = format!("kiln-{pid}-*");
        let arguments = ["/sys/fs/cgroup", "-depth", "-type", "d", "-name", &name, "-exec", "rmdir", "{}", "+"];
        let _ = Command::new("find").args(arguments).stderr(Stdio::null()).status();
    }
}
