//! User namespaces: the ids of a process, and the owners that a mount shows.

pub mod subordinate;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// The name (`argv[0]`) under which this program becomes the holder of a user namespace.
const HOLDER: &str = "kiln-user-namespace";

/// Creates a user namespace with this map of users and groups. The process must be allowed to write such a map.
///
/// `owner`: the user and group that create it, and to whom the kernel charges what is used in it; defaults to this
/// process's own.
pub fn make(program: &Path, owner: Option<u32>, map: &str) -> io::Result<File> {
    let holder = Holder::start(program, owner)?;
    let process = PathBuf::from(format!("/proc/{}", holder.child.id()));
    for file in ["uid_map", "gid_map"] {
        std::fs::write(process.join(file), map)?;
    }
    File::open(process.join("ns/user"))
}

/// A range of ids of this process's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The first id, as seen inside.
    pub inside: u32,
    /// The same id on the machine, or in the enclosing namespace.
    pub outside: u32,
    /// The number of ids.
    pub count: u32,
}

/// The id ranges of this process's user namespace: users, then groups.
pub fn mapped() -> [Vec<Mapped>; 2] {
    ["/proc/self/uid_map", "/proc/self/gid_map"]
        .map(|file| read_map(&std::fs::read_to_string(file).unwrap_or_default()))
}

fn read_map(text: &str) -> Vec<Mapped> {
    let of = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(Mapped { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
    };
    text.lines().filter_map(of).collect()
}

/// Whether this process is root on the machine, rather than only in a user namespace.
pub fn is_machine_root() -> bool {
    let everything = Mapped { inside: 0, outside: 0, count: u32::MAX };
    nix::unistd::geteuid().is_root() && mapped()[0] == [everything]
}

/// The user and group that own this process's files on the machine.
pub fn on_machine() -> (u32, u32) {
    let [users, groups] = mapped();
    let outside = |map: &[Mapped], id: u32| {
        let range = map.iter().find(|range| id.checked_sub(range.inside).is_some_and(|more| more < range.count));
        range.map_or(id, |range| range.outside + (id - range.inside))
    };
    (outside(&users, nix::unistd::geteuid().as_raw()), outside(&groups, nix::unistd::getegid().as_raw()))
}

/// A process that only holds a user namespace, until this is dropped.
struct Holder {
    child: Child,
}

impl Holder {
    fn start(program: &Path, owner: Option<u32>) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg0(HOLDER)
            .args(owner.map(|owner| owner.to_string()))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut ready = [0];
        let said = child.stdout.take().map(|mut stdout| stdout.read_exact(&mut ready));
        let holder = Self { child };
        match said {
            Some(Ok(())) => Ok(holder),
            _ => Err(io::Error::other("the kernel refuses user namespaces")),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes another user and group permanently, without supplementary groups.
pub fn become_user(id: u32) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// If this process was started to hold a user namespace, does that and never returns.
pub fn become_holder_if_asked() {
    let mut arguments = std::env::args();
    if arguments.next().is_none_or(|name| name != HOLDER) {
        return;
    }
    let owner = arguments.next().map(|owner| owner.parse::<u32>());
    let became = match owner {
        Some(Ok(owner)) => become_user(owner).is_ok(),
        Some(Err(_)) => false,
        None => true,
    };
    let held = became && unshare(CloneFlags::CLONE_NEWUSER).is_ok() && io::stdout().write_all(b"!").is_ok();
    let _ = io::stdout().flush();
    // Blocks until the worker kills this process or has itself ended.
    let _ = held && io::stdin().read(&mut [0]).is_ok();
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_ids_is_read() {
        let map = read_map("         0       1000          1\n         1     100000      65536\n");
        let expected =
            [Mapped { inside: 0, outside: 1000, count: 1 }, Mapped { inside: 1, outside: 100_000, count: 65_536 }];
        assert_eq!(map, expected);
        assert_eq!(read_map("         0          0 4294967295\n")[0].count, u32::MAX);
        assert_eq!(read_map(""), []);
    }
}
