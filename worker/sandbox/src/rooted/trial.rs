//! Finds out whether this machine runs jobs in roots of their own, and how, by running one that does what installing packages takes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use kiln_executor::scratch::Scratch;
use kiln_executor::{Job, Place, Rooted};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use super::super::prepare::Prepared;
use super::super::{Config, ids, trial};
use super::{Layout, Roots, Way};

/// The exit code of a trial that did everything.
const WELL: i32 = trial::WELL;
const FILE: &str = "kiln-trial";
const BASE: &str = "base";
const CAPABILITY: &str = "security.capability";
/// `cap_net_raw=ep`, as `setcap` stores it (`struct vfs_cap_data`, version 2).
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A user and a group of packages.
const OTHER: (u32, u32) = (33, 42);

/// The first way in which a job in a root can do what installing packages takes.
///
/// # Errors
/// What the machine lacks.
pub(in super::super) fn best(config: &Config, ids: &Result<ids::Ids, String>) -> Result<Roots, String> {
    let ids = ids.as_ref().map_err(|why| format!("steps have no {} ids of their own: {why}", ids::IDS_PER_JOB))?;
    let possible: &[(Layout, Way)] = match ids.owner() {
        // Nobody but root mounts images.
        Some(_) => &[(Layout::Unpacked, Way::Shared)],
        None => &[
            (Layout::Erofs, Way::Inside),
            (Layout::Erofs, Way::Outside),
            (Layout::Unpacked, Way::Inside),
            (Layout::Unpacked, Way::Outside),
        ],
    };
    let wanted = |(layout, way): &&(Layout, Way)| {
        config.way.is_none_or(|forced| forced == *way) && config.layout.is_none_or(|forced| forced == *layout)
    };
    let mut reasons = Vec::new();
    for (layout, way) in possible.iter().filter(wanted) {
        let roots = Roots::new(*way, *layout, ids);
        match one(config, ids, roots) {
            Ok(()) => return Ok(roots),
            Err(reason) => {
                tracing::debug!(?layout, ?way, reason, "roots cannot be laid out like this");
                reasons.push(reason);
            }
        }
    }
    if reasons.is_empty() {
        return Err("the layout that was asked for does not fit the ids that steps have here".to_owned());
    }
    Err(reasons.join("; "))
}

fn one(config: &Config, ids: &ids::Ids, roots: Roots) -> Result<(), String> {
    let lease = ids.try_take()?;
    let scratch = Scratch::new(&config.scratch).map_err(|error| error.to_string())?;
    let failed = |error: std::io::Error| format!("cannot prepare a trial: {error}");
    let objects = scratch.directory("objects").map_err(failed)?;
    let layer = match roots.layout {
        Layout::Erofs => image(roots, &scratch, &objects)?,
        Layout::Unpacked => {
            let layer = scratch.directory("layers/base").map_err(failed)?;
            fs::write(layer.join(FILE), BASE).map_err(failed)?;
            let own = roots.on_disk.layers;
            for path in [&layer, &layer.join(FILE)] {
                chown(path, Some(own), Some(own)).map_err(failed)?;
            }
            layer
        }
    };
    let rooted = Rooted::default();
    let job = Job { place: Place::Root(rooted.clone().into()), layers: vec![layer], ..trial::job() };
    let prepared =
        Prepared::in_root((roots, &objects), &lease, &scratch, &job, &rooted, job.environment.clone(), None, true)?;
    trial::run_prepared(config, Some(&lease), prepared, None)?;
    let file = scratch.path().join("written").join(FILE);
    let base = roots.on_disk.written.unwrap_or(lease.user() - super::USER);
    let data = fs::symlink_metadata(&file).map_err(|error| format!("a trial left nothing: {error}"))?;
    if (data.uid(), data.gid()) != (base + OTHER.0, base + OTHER.1) {
        return Err(format!("owners are not stored as expected: found {}:{}", data.uid(), data.gid()));
    }
    Ok(())
}

/// An image with one file, whose content is among the objects.
fn image(roots: Roots, scratch: &Scratch, objects: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("cannot prepare a trial: {error}");
    let node = |kind, mode| kiln_erofs::Node { kind, mode, uid: 0, gid: 0, modified: (0, 0), xattrs: Vec::new() };
    let nodes = [
        node(kiln_erofs::Kind::Directory(vec![(FILE.as_bytes().to_vec(), 1)]), 0o755),
        node(kiln_erofs::Kind::File(BASE.len() as u64, format!("/{FILE}").into_bytes()), 0o644),
    ];
    fs::write(objects.join(FILE), BASE).map_err(failed)?;
    let path = scratch.path().join("image");
    let mut file = fs::File::create(&path).map_err(failed)?;
    kiln_erofs::write(&nodes, roots.on_disk.marks, &mut file).map_err(|error| error.to_string())?;
    Ok(path)
}

/// In the job, as its root: what installing packages takes. The exit code, and what failed.
pub(super) fn attempt() -> (i32, String) {
    let file = Path::new("/").join(FILE);
    let did = || -> Result<(), String> {
        let io = |what: &'static str| move |error: std::io::Error| format!("root in a step cannot {what}: {error}");
        let errno =
            |what: &'static str| move |error: rustix::io::Errno| format!("root in a step cannot {what}: {error}");
        if fs::read_to_string(&file).map_err(io("read its root"))? != BASE {
            return Err("root in a step finds other content in its files".to_owned());
        }
        fs::write(&file, "written").map_err(io("write to its root"))?;
        chown(&file, Some(OTHER.0), Some(OTHER.1)).map_err(io("give files to other users"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).map_err(io("set user bits"))?;
        lsetxattr(&file, CAPABILITY, &NET_RAW, XattrFlags::empty()).map_err(errno("give capabilities to files"))?;
        let mut value = [0; 64];
        lgetxattr(&file, CAPABILITY, &mut value).map_err(errno("read capabilities of files"))?;
        fs::read_dir("/proc/self").map_err(io("read `/proc`"))?;
        Ok(())
    };
    match did() {
        Ok(()) => (WELL, String::new()),
        Err(reason) => (1, reason),
    }
}
