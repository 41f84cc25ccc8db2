//! User namespaces that nothing runs in: they say which owners a mount shows, or which ids a job has.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// The name under which this program starts to hold a user namespace.
const HOLDER: &str = "kiln-user-namespace";

/// Makes a user namespace with this map of users and groups; only for a process that may write such a map.
///
/// `owner`: the user and group by whom it is made, and to whom the kernel charges what is used up in it; by default this
/// process's own.
pub(crate) fn make(program: &Path, owner: Option<u32>, map: &str) -> io::Result<File> {
    let holder = Holder::start(program, owner)?;
    let process = PathBuf::from(format!("/proc/{}", holder.child.id()));
    for file in ["uid_map", "gid_map"] {
        std::fs::write(process.join(file), map)?;
    }
    File::open(process.join("ns/user"))
}

/// A process that does nothing but have a user namespace, until this is dropped.
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

/// Becomes another user and group for good, without any other groups.
pub(crate) fn become_user(id: u32) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// Where this process was started to hold a user namespace, it does that and does not return.
pub(crate) fn become_holder_if_asked() {
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
    // Until the worker ends it, or has ended.
    let _ = held && io::stdin().read(&mut [0]).is_ok();
    std::process::exit(0);
}
