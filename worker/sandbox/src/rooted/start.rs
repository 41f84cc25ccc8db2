//! Starts a job's command in its root, as its user and with no more than it may do.
//!
//! The init keeps its capabilities, so a thread of its own gives them up and starts the command: credentials and system call filters
//! belong to threads. The init cannot be traced or read meanwhile, because it is not dumpable.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_executor::rooted::PATH;
use nix::unistd::Pid;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use super::super::init::{Recorder, Start};
use super::super::spec::{Network, Spec};
use super::apart;
use super::build::Built;
use super::spec::RootSpec;
use super::trial;

/// What root in a container has with container engines, without the creation of devices, which a user namespace refuses anyway.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);
/// Number of capabilities that the kernel may know one day.
const MOST: u32 = 63;

/// Starts the command. An error is a shell's exit code and a message.
pub(in super::super) fn start(
    spec: &Spec,
    what: Start<'_>,
    (root, built): (&RootSpec, &Built),
    recorder: Option<&Recorder>,
) -> Result<Pid, (i32, String)> {
    let dumpable = nix::sys::prctl::set_dumpable(false);
    dumpable.map_err(|error| (126, format!("cannot protect the init: {error}")))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // A service must not reach the command that judges it, nor the other way round.
            root.service.as_ref().map_or(Ok(()), |_| apart::from_others("command")).map_err(|reason| (126, reason))?;
            confine(spec, built, recorder).map_err(|reason| (126, reason))?;
            if root.is_trial { Err(trial::attempt()) } else { command(spec, what, root, built) }
        });
        thread.join().unwrap_or_else(|_| Err((126, "the thread that starts the command panicked".to_owned())))
    })
}

/// Gives up, for this thread and what it starts, everything that a job may not do.
pub(super) fn confine(spec: &Spec, built: &Built, recorder: Option<&Recorder>) -> Result<(), String> {
    let words = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    let shares_network = spec.network == Network::Machine;
    let filter = kiln_seccomp::of_root(shares_network);
    for number in 0..=MOST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // A number that the kernel does not know is refused.
        if !KEPT.contains(capability) && thread::capability_is_in_bounding_set(capability).unwrap_or(false) {
            thread::remove_capability_from_bounding_set(capability).map_err(words("cannot give up a capability"))?;
        }
    }
    let user = &built.user;
    let groups: Vec<Gid> = user.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // The filters need a capability that is given up next. What the last one lets go on is refused by the first.
    recorder.map_or(Ok(()), Recorder::install)?;
    filter.install()?;
    thread::set_thread_groups(&groups).map_err(words("cannot set the groups"))?;
    thread::set_thread_res_gid(gid, gid, gid).map_err(words("cannot set the group"))?;
    thread::set_thread_res_uid(uid, uid, uid).map_err(words("cannot set the user"))?;
    let kept = if user.uid == 0 { KEPT } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).map_err(words("cannot give up capabilities"))
}

fn command(spec: &Spec, what: Start<'_>, root: &RootSpec, built: &Built) -> Result<Pid, (i32, String)> {
    let path = spec.environment.get("PATH").map_or(PATH, String::as_str);
    let mut command = what.program(&built.directory, path, "in the root")?;
    let secrets: BTreeMap<&str, &str> = spec.secrets.variables().collect();
    command.env_clear().env("HOME", &built.user.home).envs(&spec.environment);
    for (variable, secret) in &root.secret_variables {
        if let Some(value) = secrets.get(secret.as_str()) {
            command.env(variable, value);
        }
    }
    match what.connect(&mut command).and_then(|()| command.spawn()) {
        Ok(child) => Ok(Pid::from_raw(child.id() as i32)),
        Err(error) => Err((126, format!("cannot start `{}`: {error}", Path::new(command.get_program()).display()))),
    }
}
