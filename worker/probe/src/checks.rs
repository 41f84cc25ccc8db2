//! What a machine has and lacks for running actions, and what to do about it.

use std::fs;
use std::path::Path;

use kiln_proto::v1::Check;
use kiln_proto::v1::check::State;
use kiln_sandbox::{Findings, Layout};

/// The first kernel with overlays in user namespaces and mounts that map owners.
const KERNEL: (u32, u32) = (5, 12);
/// With less free space, a step cannot write its outputs.
const LITTLE_BYTES: u64 = 1 << 30;
/// With less free space, inputs are soon fetched again and again.
const SCARCE_BYTES: u64 = 10 << 30;

fn check(name: &str, state: State, found: impl Into<String>, why: &str, fix: &str) -> Check {
    let fix = if state == State::Ok { "" } else { fix };
    Check { name: name.into(), state: state.into(), found: found.into(), why: why.into(), fix: fix.into() }
}

/// Looks at the machine. `found` is what the sandbox tried out, `directory` is where inputs and outputs are kept.
pub fn checks(found: &Findings, directory: &Path) -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let is_root = rustix::process::geteuid().is_root();
    let mut all = vec![
        kernel(&release),
        namespaces(found, is_root),
        overlays(),
        ids(found, is_root),
        groups(found),
        network(found),
    ];
    all.extend([roots(found), erofs(found), emulation()]);
    all.extend(space(directory));
    all
}

fn kernel(release: &str) -> Check {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let state = if version >= KERNEL { State::Ok } else { State::Missing };
    let why = "a sandbox needs Linux 5.12: overlays in user namespaces, and mounts that map owners";
    check(
        "kernel",
        state,
        format!("Linux {release}"),
        why,
        "install a newer kernel, such as your distribution's, and restart",
    )
}

/// The setting that forbids user namespaces, and how it is changed.
fn forbidding(is_root: bool) -> Option<(&'static str, &'static str)> {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return Some(("`user.max_user_namespaces` is 0", "sysctl -w user.max_user_namespaces=15000"));
    }
    if !is_root && is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some(("`kernel.unprivileged_userns_clone` is 0", "sysctl -w kernel.unprivileged_userns_clone=1"));
    }
    if !is_root && is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        let fix = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
        return Some(("AppArmor restricts user namespaces of users other than root", fix));
    }
    None
}

fn namespaces(found: &Findings, is_root: bool) -> Check {
    let why = "each step runs in namespaces of its own (users, processes, mounts, network); without them it can do whatever its worker can";
    match (&found.sandbox, forbidding(is_root)) {
        (Ok(()), _) => check("namespaces", State::Ok, "user, process, mount and network namespaces work", why, ""),
        (Err(reason), Some((cause, fix))) => {
            check("namespaces", State::Missing, format!("{cause}: {reason}"), why, fix)
        }
        (Err(reason), None) => {
            let fix = "run the worker as root, or in a container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`";
            check("namespaces", State::Missing, reason.as_str(), why, fix)
        }
    }
}

/// Whether the kernel knows a file system now; modules are loaded when they are mounted by root.
fn knows(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(name))
}

fn overlays() -> Check {
    let why = "a step writes to an overlay above its inputs";
    match knows("overlay") {
        true => check("overlayfs", State::Ok, "the kernel has it", why, ""),
        false => check("overlayfs", State::Missing, "the kernel does not have it", why, "modprobe overlay"),
    }
}

fn ids(found: &Findings, is_root: bool) -> Check {
    let why = "steps have users other than the worker's, and image roots have 65,536 of them";
    let fix = match is_root {
        true => "put STATE_DIR on ext4, XFS or Btrfs, or give the worker a range with `--subids BASE:COUNT`",
        false => "apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
    };
    match &found.ids {
        Ok(how) => check("subordinate ids", State::Ok, how.as_str(), why, ""),
        Err(reason) => check("subordinate ids", State::Warning, reason.as_str(), why, fix),
    }
}

fn groups(found: &Findings) -> Check {
    let why = "control groups enforce the limits of steps; without them a watchdog looks ten times a second";
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let version = match &controllers {
        Ok(names) => format!("version 2 ({})", names.trim()),
        Err(_) if Path::new("/sys/fs/cgroup/memory").exists() => "version 1".to_owned(),
        Err(_) => "none is mounted".to_owned(),
    };
    let fix = "systemd-run --scope -p Delegate=yes COMMAND, or `Delegate=yes` in the worker's unit";
    match &found.limits {
        Some(how) => check("control groups", State::Ok, format!("{version}; limits by {how}"), why, ""),
        None => check("control groups", State::Warning, format!("{version}; none can be written"), why, fix),
    }
}

fn network(found: &Findings) -> Check {
    let why = "steps with the network get one of their own; without it they share the machine's, with its loopback and private addresses";
    match &found.network {
        Ok(program) => check("step networks", State::Ok, program.as_str(), why, ""),
        Err(reason) => check("step networks", State::Warning, reason.as_str(), why, "apt-get install passt"),
    }
}

fn roots(found: &Findings) -> Check {
    let why = "a Dockerfile's RUN, and steps with an `image`, run in root file systems of their own";
    match &found.roots {
        Ok(roots) => check("image roots", State::Ok, roots.describe(), why, ""),
        Err(reason) => check(
            "image roots",
            State::Warning,
            reason.as_str(),
            why,
            "correct what is said of subordinate ids and namespaces",
        ),
    }
}

fn erofs(found: &Findings) -> Check {
    let why = "as root on Linux 6.16 an image is mounted as EROFS; otherwise it is unpacked, which takes time and disk";
    match &found.roots {
        Ok(roots) if roots.layout == Layout::Erofs => check("EROFS", State::Ok, "images are mounted", why, ""),
        _ if knows("erofs") => check(
            "EROFS",
            State::Warning,
            "the kernel has it, but images are unpacked",
            why,
            "run the worker as root on Linux 6.16 or later",
        ),
        _ => check("EROFS", State::Warning, "the kernel does not have it", why, "modprobe erofs"),
    }
}

fn emulation() -> Check {
    let (other, qemu) =
        if cfg!(target_arch = "x86_64") { ("linux/arm64", "qemu-aarch64") } else { ("linux/amd64", "qemu-x86_64") };
    let why = "builds with `--allow-emulation` can run steps of another architecture here, on a worker with `--root`";
    let entry = fs::read_to_string(Path::new("/proc/sys/fs/binfmt_misc").join(qemu)).unwrap_or_default();
    match entry.lines().next() {
        Some("enabled") => check("emulation", State::Ok, format!("{qemu} runs programs of {other}"), why, ""),
        _ => {
            let fix = "apt-get install qemu-user-static binfmt-support";
            check("emulation", State::Warning, format!("programs of {other} do not run"), why, fix)
        }
    }
}

fn space(directory: &Path) -> Option<Check> {
    let disk = directory.ancestors().find_map(|above| rustix::fs::statvfs(above).ok())?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let state = match free {
        free if free < LITTLE_BYTES => State::Missing,
        free if free < SCARCE_BYTES => State::Warning,
        _ => State::Ok,
    };
    let found = format!("{:.1} GiB free for `{}`", free as f64 / (1_u64 << 30) as f64, directory.display());
    let fix = format!("du -xh --max-depth=2 {} | sort -h | tail", directory.display());
    Some(check("disk", state, found, "inputs, image roots and outputs are kept there", &fix))
}

/// A Docker Engine: what it is, or why there is none. A machine without one needs none, unless it has been told to use one.
pub fn docker(offered: Result<&str, &str>, is_required: bool) -> Check {
    let why = "steps run in containers if their caller wants that, or if only an engine has their image";
    match offered {
        Ok(engine) => check("Docker", State::Ok, engine, why, ""),
        Err(reason) if is_required => check("Docker", State::Missing, reason, why, "systemctl start docker"),
        Err(_) => check("Docker", State::Ok, "not used", why, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_old_or_new_enough() {
        for (release, state) in [
            ("6.1.0-18-amd64", State::Ok),
            ("5.12.0", State::Ok),
            ("5.10.0-28", State::Missing),
            ("4.18.0-553.el8", State::Missing),
            ("10.0", State::Ok),
            ("", State::Missing),
        ] {
            assert_eq!(kernel(release).state(), state, "{release}");
        }
    }

    #[test]
    fn what_a_machine_lacks_has_a_reason_and_a_fix_and_what_it_has_has_none() {
        let lacking = Findings {
            sandbox: Err("EPERM".into()),
            ids: Err("no range".into()),
            network: Err("no pasta".into()),
            roots: Err("no ids".into()),
            limits: None,
        };
        for one in checks(&lacking, Path::new("/")) {
            assert!(!one.why.is_empty() && !one.found.is_empty(), "{one:?}");
            assert_eq!(one.fix.is_empty(), one.state() == State::Ok, "{one:?}");
        }
        let states = |name: &str| checks(&lacking, Path::new("/")).into_iter().find(|one| one.name == name).unwrap();
        assert_eq!((states("namespaces").state(), states("step networks").state()), (State::Missing, State::Warning));
        assert!(states("step networks").found.contains("no pasta"));
        assert_eq!(docker(Err("it does not answer"), false).state(), State::Ok);
        assert_eq!(docker(Err("it does not answer"), true).state(), State::Missing);
    }
}
