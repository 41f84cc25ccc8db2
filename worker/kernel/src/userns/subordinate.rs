//! A user namespace for a worker without root: inside it the worker is root and has its user's subordinate ids.
//!
//! Sources: user_namespaces(7), newuidmap(1), subuid(5). The worker's own user is 0 inside, so its files stay its own;
//! the subordinate ids follow from 1 on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{User, getegid, geteuid};

use super::Holder;

/// A range of ids: the first one and their number.
type Range = (u32, u32);

/// Enters such a namespace permanently, together with a mount namespace. Must be called while the process has a single
/// thread. `wanted`: which of the user's subordinate ids to use; defaults to the first range of at least `least` in
/// `/etc/subuid` and `/etc/subgid`.
///
/// # Errors
/// What the machine or its user lacks. Nothing has changed then.
pub fn enter(program: &Path, wanted: Option<Range>, least: u32) -> Result<(), String> {
    let (user, group) = (geteuid(), getegid());
    let name = User::from_uid(user).ok().flatten().map_or_else(|| user.to_string(), |user| user.name);
    let (newuidmap, newgidmap) = (find("newuidmap")?, find("newgidmap")?);
    let range = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let own = ranges(&text, &name, user.as_raw()).into_iter().find(|(_, count)| *count >= least);
        wanted.or(own).ok_or_else(|| {
            format!(
                "`{file}` has no {least} ids for the user `{name}`: as root, run `usermod --add-subuids 100000-165535 \
                 --add-subgids 100000-165535 {name}` with ids that no other user has"
            )
        })
    };
    let (users, groups) = (range("/etc/subuid")?, range("/etc/subgid")?);
    let holder = Holder::start(program, None).map_err(|error| error.to_string())?;
    let process = holder.child.id();
    map(&newuidmap, process, user.as_raw(), users)?;
    map(&newgidmap, process, group.as_raw(), groups)?;
    let namespace = File::open(format!("/proc/{process}/ns/user")).map_err(|error| error.to_string())?;
    setns(&namespace, CloneFlags::CLONE_NEWUSER)
        .map_err(|error| format!("cannot enter the worker's user namespace: {error}"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("cannot create a mount namespace: {error}"))
}

/// Runs a set-user-ID program that writes the user or group map of a process.
fn map(program: &Path, process: u32, own: u32, (base, count): Range) -> Result<(), String> {
    let arguments = [process, 0, own, 1, 1, base, count].map(|number| number.to_string());
    let failed = |words: &str| format!("`{}` cannot map the ids from {base} ({count}): {words}", program.display());
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(&error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(failed(String::from_utf8_lossy(&output.stderr).trim())) }
}

fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/bin", "/usr/bin", "/bin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("the worker is not root, and `{name}` is not installed: it is in the package `uidmap`"))
}

/// The ranges of a user, who may be listed by name or number.
fn ranges(text: &str, name: &str, id: u32) -> Vec<Range> {
    let of = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (owner == name || owner == id.to_string()).then_some(range)
    };
    text.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_a_user_are_found_by_name_and_by_number() {
        let text = "root:1:2\nbuild:100000:65536\n# build:1:1\n4242:300000:131072\nbuilder:5:5\nbuild:x:1\nbuild:7\n";
        assert_eq!(ranges(text, "build", 4242), [(100_000, 65_536), (300_000, 131_072)]);
        assert_eq!(ranges(text, "nobody", 9), []);
    }
}
