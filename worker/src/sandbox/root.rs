//! The sandbox's root, built by the init inside its mount namespace.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;

use super::spec::{Bind, Spec};
use crate::executor::{BUILD, HOME};
use crate::syscalls;

/// Where files of the home directory really are.
const IN_MEMORY: &str = "/run/kiln";
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files of /proc that show the kernel's memory, keys or log.
const HIDDEN: [&str; 12] = [
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "pagetypeinfo",
    "sched_debug",
    "slabinfo",
    "timer_list",
    "vmallocinfo",
];

type Result<T> = std::result::Result<T, String>;

fn mounted<S: AsRef<Path>, F: AsRef<Path>>(
    source: Option<S>,
    target: &Path,
    kind: Option<F>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    mount(source.as_ref().map(AsRef::as_ref), target, kind.as_ref().map(AsRef::as_ref), flags, data)
        .map_err(|error| format!("cannot mount `{}`: {error}", target.display()))
}

const NONE: Option<&Path> = None;

/// Builds the root and moves into it; what was there before is out of reach.
pub(super) fn build(spec: &Spec) -> Result<()> {
    mounted(NONE, Path::new("/"), NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let root = &spec.root;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounted(Some("tmpfs"), root, Some("tmpfs"), safe, Some("mode=0755,size=16m"))?;
    for bind in &spec.binds {
        place(root, bind)?;
    }
    for (at, target) in &spec.links {
        let at = inside(root, at);
        parent(&at)?;
        std::os::unix::fs::symlink(target, &at).map_err(|error| format!("cannot link `{}`: {error}", at.display()))?;
    }
    for (at, content) in &spec.files {
        write_within(root, at, content)?;
    }
    for (path, content) in spec.secrets.files() {
        write_within(root, &Path::new(HOME).join(path), content)?;
    }
    devices(root)?;
    processes(root)?;
    inputs(root, spec)?;
    enter(root)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Writes a file that stays in memory: the home directory is on a disk, so there it is a link.
fn write_within(root: &Path, at: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, symlink};
    let failed = |error: std::io::Error| format!("cannot write `{}`: {error}", at.display());
    let is_home = at.starts_with(HOME);
    let kept = if is_home { Path::new(IN_MEMORY).join(at.strip_prefix("/").unwrap_or(at)) } else { at.to_owned() };
    let to = inside(root, &kept);
    parent(&to)?;
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(if is_home { 0o600 } else { 0o644 });
    std::io::Write::write_all(&mut options.open(&to).map_err(failed)?, content.as_bytes()).map_err(failed)?;
    if is_home {
        let link = inside(root, at);
        parent(&link)?;
        symlink(&kept, &link).map_err(failed)?;
    }
    Ok(())
}

fn directory(root: &Path, name: &str) -> Result<PathBuf> {
    let path = root.join(name);
    fs::create_dir_all(&path).map_err(|error| format!("cannot make `{}`: {error}", path.display()))?;
    Ok(path)
}

fn parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|error| format!("cannot make `{}`: {error}", parent.display()))
}

fn place(root: &Path, bind: &Bind) -> Result<()> {
    let to = inside(root, &bind.to);
    if bind.from.is_dir() {
        fs::create_dir_all(&to).map_err(|error| format!("cannot make `{}`: {error}", to.display()))?;
    } else {
        parent(&to)?;
        if !to.exists() {
            fs::write(&to, "").map_err(|error| format!("cannot make `{}`: {error}", to.display()))?;
        }
    }
    mounted(Some(&bind.from), &to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, None)?;
    if bind.writable {
        return Ok(());
    }
    syscalls::make_read_only(&to).map_err(|error| format!("cannot make `{}` read-only: {error}", bind.to.display()))
}

fn devices(root: &Path) -> Result<()> {
    let dev = directory(root, "dev")?;
    for name in DEVICES {
        let host = Path::new("/dev").join(name);
        if host.exists() {
            let to = dev.join(name);
            fs::write(&to, "").map_err(|error| format!("cannot make `{}`: {error}", to.display()))?;
            mounted(Some(&host), &to, NONE, MsFlags::MS_BIND, None)?;
        }
    }
    let shm = directory(&dev, "shm")?;
    mounted(Some("tmpfs"), &shm, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))?;
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, dev.join(name))
            .map_err(|error| format!("cannot link /dev/{name}: {error}"))?;
    }
    // Terminals for tools that want one; a kernel that refuses them is no reason to refuse the rest.
    let pts = directory(&dev, "pts")?;
    let options = Some("newinstance,ptmxmode=0666,mode=620");
    if mount(Some("devpts"), &pts, Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, options).is_ok() {
        let _ = std::os::unix::fs::symlink("pts/ptmx", dev.join("ptmx"));
    }
    Ok(())
}

/// The kernel's own files, read-only as a whole: where the worker is root, the action is too for the owners of files, and could
/// otherwise write the kernel's settings without any capability.
fn processes(root: &Path) -> Result<()> {
    let proc = directory(root, "proc")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mounted(Some("proc"), &proc, Some("proc"), safe, None)?;
    // In a namespace of its own an action would have every capability, and most of the kernel's code before it.
    fs::write(proc.join("sys/user/max_user_namespaces"), "0")
        .map_err(|error| format!("cannot forbid further user namespaces: {error}"))?;
    syscalls::make_read_only(&proc).map_err(|error| format!("cannot make /proc read-only: {error}"))?;
    for name in HIDDEN {
        let path = proc.join(name);
        if path.exists() {
            mounted(Some(&root.join("dev/null")), &path, NONE, MsFlags::MS_BIND, None)?;
        }
    }
    Ok(())
}

fn inputs(root: &Path, spec: &Spec) -> Result<()> {
    let build = directory(root, BUILD.trim_start_matches('/'))?;
    spec.overlay.mount(&build, true)?;
    for path in &spec.make_directories {
        let to = build.join(path);
        fs::create_dir_all(&to).map_err(|error| format!("cannot make `{path}`, the parent of an output: {error}"))?;
    }
    Ok(())
}

fn enter(root: &Path) -> Result<()> {
    let words = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    std::env::set_current_dir(root).map_err(|error| format!("cannot enter the root: {error}"))?;
    pivot_root(".", ".").map_err(words("cannot change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(words("cannot leave the old root"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot enter the root: {error}"))?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mounted(NONE, Path::new("/"), NONE, flags, None)
}
