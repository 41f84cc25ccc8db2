//! Users and groups of actions: a range of subordinate ids for each running action, or one user for all of them.
//!
//! Invariant: no action runs with an id of the worker's.
//!
//! With ranges, two actions that run at the same time have no id in common, and whatever the kernel limits per user
//! (inotify instances, pending signals, message queues) is charged to the action's own range. On disk everything
//! belongs to the worker: an action sees the worker's directories through id-mapped mounts that show the action as
//! their owner. These need root and support from the kernel and the file system. Elsewhere all actions run as one user,
//! who owns their inputs and outputs on disk too.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::mount::{OpenTreeFlags, open_tree};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Config;
use super::init::USER;
use kiln_kernel::{syscalls, userns};

/// Number of ids of one action.
pub const IDS_PER_JOB: u32 = 65_536;
/// The default range if neither the command line nor `/etc/subuid` names one: ids that Linux distributions and systemd
/// leave unused.
const DEFAULT: SubIds = SubIds { base: 0x7000_0000, count: 256 * IDS_PER_JOB };

/// A range of subordinate user and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubIds {
    base: u32,
    count: u32,
}

impl SubIds {
    /// The range that both `/etc/subuid` and `/etc/subgid` give to root's containers, or else one that nobody uses.
    fn of_root() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let groups = ranges(&read("/etc/subgid"));
        let shared =
            ranges(&read("/etc/subuid")).into_iter().find(|range| groups.contains(range) && range.count >= IDS_PER_JOB);
        shared.unwrap_or(DEFAULT)
    }

    /// The range that this process's user namespace has besides its root, for users and groups alike.
    fn mapped() -> Result<Self, String> {
        let [users, groups] = userns::mapped();
        let starts =
            [&users, &groups].map(|ranges| ranges.iter().find(|range| range.inside > 0 && range.count >= IDS_PER_JOB));
        match starts {
            [Some(users), Some(groups)] if users.inside == groups.inside => {
                Ok(Self { base: users.inside, count: users.count.min(groups.count) })
            }
            _ => Err(format!("the worker's user namespace has no {IDS_PER_JOB} ids beside its own")),
        }
    }

    fn slots(self) -> u32 {
        self.count / IDS_PER_JOB
    }

    /// The first id, and how many.
    pub fn range(self) -> (u32, u32) {
        (self.base, self.count)
    }
}

impl std::fmt::Display for SubIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.base, self.count)
    }
}

impl FromStr for SubIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "invalid range of ids `{text}`: expected `BASE:COUNT` above 65535 with at least {IDS_PER_JOB} ids, such as \
                 `{DEFAULT}`"
            )
        };
        let (base, count) = text.split_once(':').ok_or_else(wrong)?;
        let range = Self { base: base.parse().map_err(|_| wrong())?, count: count.parse().map_err(|_| wrong())? };
        // The last id means "none" and cannot be used.
        let fits = range.base.checked_add(range.count).is_some_and(|end| end < u32::MAX);
        if range.base < IDS_PER_JOB || range.count < IDS_PER_JOB || !fits { Err(wrong()) } else { Ok(range) }
    }
}

/// Reads the lines `NAME:BASE:COUNT` of root and of the user `kiln`.
fn ranges(text: &str) -> Vec<SubIds> {
    let of = |line: &str| {
        let (name, range) = line.trim().split_once(':')?;
        matches!(name, "kiln" | "root").then(|| range.parse().ok()).flatten()
    };
    text.lines().filter_map(of).collect()
}

/// How actions get their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A range for each action; id-mapped mounts show the worker's files as the action's own.
    Each,
    /// One user for all actions, who owns their files.
    Shared,
}

/// Allocates ids to actions.
#[derive(Debug)]
pub(super) struct Ids {
    kind: Kind,
    range: SubIds,
    /// Why actions share one user, if they do.
    why_shared: Option<String>,
    program: PathBuf,
    free: Arc<Mutex<Free>>,
    /// One permit for each free slot.
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Free {
    /// Slots that were used before, with their namespaces.
    made: Vec<Slot>,
    /// Numbers of the slots that could not be created.
    failed: Vec<u32>,
    /// The next number that was never used.
    next: u32,
}

impl Free {
    fn number(&mut self) -> u32 {
        self.failed.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

#[derive(Debug)]
struct Slot {
    /// The action's user id outside its namespace.
    user: u32,
    /// The user namespace that the action runs in.
    namespace: File,
    /// The user namespace for id-mapped mounts that show the worker's files as the action's; `None` if the files are
    /// the action's already.
    owners: Option<File>,
}

/// The ids of one action; released on drop.
#[derive(Debug)]
pub(super) struct Lease {
    slot: Option<Slot>,
    free: Arc<Mutex<Free>>,
    _permit: OwnedSemaphorePermit,
}

impl Ids {
    /// Creates an allocator.
    ///
    /// # Errors
    /// The reason why this process cannot allocate ids in this way.
    pub(super) fn open(kind: Kind, config: &Config) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err(config.no_ids.clone().unwrap_or_else(|| "the worker is not root".to_owned()));
        }
        let is_machine = userns::is_machine_root();
        let range = if is_machine { config.sub_ids.unwrap_or_else(SubIds::of_root) } else { SubIds::mapped()? };
        let at_once = match kind {
            Kind::Each if !is_machine => return Err("only root on the machine can map the owners of files".to_owned()),
            Kind::Each => range.slots() as usize,
            // The number of ids does not limit the number of actions.
            Kind::Shared => Semaphore::MAX_PERMITS,
        };
        let (program, permits) = (config.init(), Arc::new(Semaphore::new(at_once)));
        let ids = Self { kind, range, why_shared: None, program, free: Arc::default(), permits };
        ids.try_take()?.mount(&config.scratch)?;
        Ok(ids)
    }

    /// The user and group that must own inputs on disk; `None` if it is the worker's own.
    pub(super) fn owner(&self) -> Option<u32> {
        (self.kind == Kind::Shared).then_some(self.range.base + USER)
    }

    /// Whether two actions can run at the same time.
    pub(super) fn are_several(&self) -> bool {
        self.permits.available_permits() > 1
    }

    /// Whether there are ids for another action.
    pub(super) fn are_left(&self) -> bool {
        self.permits.available_permits() > 0
    }

    /// Notes why actions do not have a range of ids each.
    pub(super) fn shared_because(mut self, why: String) -> Self {
        self.why_shared = Some(why);
        self
    }

    /// Takes ids that no other action has, without waiting.
    pub(super) fn try_take(&self) -> Result<Lease, String> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|error| error.to_string())?;
        self.lease(permit)
    }

    /// Describes the ids of actions.
    pub(super) fn describe(&self) -> String {
        match self.kind {
            Kind::Each => format!("{IDS_PER_JOB} ids for each action from {}", self.range),
            Kind::Shared => {
                let why = self.why_shared.as_ref().map_or(String::new(), |why| format!(" (not one for each: {why})"));
                format!("all actions run as one user other than the worker's{why}")
            }
        }
    }

    /// Waits for ids that no other action has.
    pub(super) async fn take(&self) -> Result<Lease, String> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        self.lease(permit)
    }

    fn lease(&self, permit: OwnedSemaphorePermit) -> Result<Lease, String> {
        let (made, number) = {
            let mut free = self.free.lock();
            let made = free.made.pop();
            let number = if made.is_some() { 0 } else { free.number() };
            (made, number)
        };
        let made = made.map_or_else(|| self.make(number), Ok);
        let slot = made.inspect_err(|_| self.free.lock().failed.push(number))?;
        Ok(Lease { slot: Some(slot), free: self.free.clone(), _permit: permit })
    }

    fn make(&self, number: u32) -> Result<Slot, String> {
        let slot = match self.kind {
            // Workers that share a range, such as commands in several projects, start at different places in it.
            Kind::Each => (std::process::id() % self.range.slots() + number) % self.range.slots(),
            Kind::Shared => 0,
        };
        let base = self.range.base + slot * IDS_PER_JOB;
        let user = base + USER;
        let failed = |error| format!("cannot create a user namespace for the ids from {base}: {error}");
        let namespace = userns::make(&self.program, Some(user), &format!("0 {base} {IDS_PER_JOB}")).map_err(failed)?;
        let owners = match self.kind {
            Kind::Each => Some(userns::make(&self.program, None, &format!("0 {user} 1")).map_err(failed)?),
            Kind::Shared => None,
        };
        Ok(Slot { user, namespace, owners })
    }
}

impl Lease {
    /// The id of the action's user and group outside its namespace.
    pub(super) fn user(&self) -> u32 {
        self.slot.as_ref().map_or(0, |slot| slot.user)
    }

    /// The user namespace that the action runs in.
    pub(super) fn namespace(&self) -> Option<&File> {
        self.slot.as_ref().map(|slot| &slot.namespace)
    }

    /// A detached mount of one of the worker's files or directories, on which it belongs to the action.
    pub(super) fn mount(&self, path: &Path) -> Result<OwnedFd, String> {
        let words = |error: std::io::Error| format!("cannot map the owners of `{}`: {error}", path.display());
        let tree = detached(path)?;
        if let Some(owners) = self.slot.as_ref().and_then(|slot| slot.owners.as_ref()) {
            syscalls::map_owners(tree.as_fd(), owners.as_fd()).map_err(words)?;
        }
        Ok(tree)
    }

    /// Gives the action a directory that was created for it, if no mount shows it as the action's own.
    pub(super) fn give(&self, path: &Path) -> Result<(), String> {
        match &self.slot {
            Some(Slot { user, owners: None, .. }) => std::os::unix::fs::lchown(path, Some(*user), Some(*user))
                .map_err(|error| format!("cannot give `{}` to an action: {error}", path.display())),
            _ => Ok(()),
        }
    }

    /// A detached mount with unchanged owners, for file systems that cannot map them.
    pub(super) fn clone_mount(&self, path: &Path) -> Result<OwnedFd, String> {
        detached(path)
    }
}

/// A detached mount of a path.
fn detached(path: &Path) -> Result<OwnedFd, String> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(rustix::fs::CWD, path, flags)
        .map_err(|error| format!("cannot clone the mount of `{}`: {error}", path.display()))
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.free.lock().made.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_or_refused_in_words() {
        assert_eq!("100000:131072".parse(), Ok(SubIds { base: 100_000, count: 131_072 }));
        for wrong in ["", "100000", "100000:x", "0:65536", "100000:65535", "4294902000:65536", "1000:65536"] {
            let refused = wrong.parse::<SubIds>().unwrap_err();
            assert!(refused.contains("BASE:COUNT") && refused.contains(&format!("`{wrong}`")), "{refused}");
        }
        assert_eq!(DEFAULT.to_string().parse(), Ok(DEFAULT));
    }

    #[test]
    fn only_the_ranges_of_root_and_kiln_are_taken() {
        let text = "someone:100000:65536\nkiln:300000:65536\n# root:1:2\nroot:400000:65536\nroot:1:1\n";
        let found: Vec<String> = ranges(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["300000:65536", "400000:65536"]);
    }
}
