//! Puts a root together and moves into it. Runs in the init, before anything of the job does.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use kiln_executor::{BUILD, HOME, User};
use kiln_kernel::syscalls;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::pivot_root;
use rustix::mount::{MoveMountFlags, move_mount};

use super::super::root;
use super::super::spec::Spec;
use super::outside::{detached, mount, place};
use super::points::{Points, absolute};
use super::spec::{RootSpec, What};
use super::{Way, authorities, system};

/// Why a root was not put together.
#[derive(Debug)]
pub(in super::super) enum Failed {
    /// The machine's fault.
    Setup(String),
    /// The job asks for something that its root does not have.
    Refused(String),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Setup(reason)
    }
}

/// A root that this process is in.
#[derive(Debug)]
pub(in super::super) struct Built {
    pub(super) user: User,
    pub(super) directory: PathBuf,
    points: Points,
    stays: bool,
}

impl Built {
    /// The place of something that starts in another root than the job's. That is thrown away.
    pub(super) fn in_other_root(user: User, directory: PathBuf, points: Points) -> Self {
        Self { user, directory, points, stays: true }
    }

    /// The id of the job's user.
    pub(in super::super) fn owner(&self) -> u32 {
        self.user.uid
    }

    /// Removes what was put into the root for the job, once the job has ended, unless it is thrown away with the root.
    pub(in super::super) fn leave(self) {
        if self.stays {
            return;
        }
        let _ = std::env::set_current_dir("/");
        self.points.leave();
    }
}

/// Something to mount.
struct Part {
    target: PathBuf,
    tree: OwnedFd,
    is_directory: bool,
}

/// Puts the root together and moves into it; everything else becomes unreachable.
pub(in super::super) fn build(spec: &Spec, root: &RootSpec, sent: &mut Vec<OwnedFd>) -> Result<Built, Failed> {
    let place = place()?;
    let mut trees = match root.way {
        Way::Outside => std::mem::take(sent),
        Way::Inside | Way::Shared => mount(&place, spec, root, sent)?,
    };
    let mut parts: Vec<Part> = system::prepare(&place, spec.shared_memory_bytes)?
        .into_iter()
        .map(|(target, tree)| Part { target, tree, is_directory: true })
        .collect();
    parts.extend(files(&place, spec)?);
    let mut bundle = None;
    if let Some(text) = &root.authorities {
        let (file, found) = trusted(&place, text)?;
        parts.extend(found);
        bundle = Some(file);
    }
    parts.extend(mounts(&place, spec, root, &trees)?);
    if trees.is_empty() {
        return Err(Failed::Setup("the root's mount is missing".to_owned()));
    }
    enter(&place, &trees.swap_remove(0))?;
    drop(trees);
    if let Some(mut file) = bundle.take() {
        authorities::add_own(&mut file).map_err(|error| format!("cannot write the authorities: {error}"))?;
    }
    // As the root has them: a mount could hide its files.
    let user = User::find(&root.user).map_err(Failed::Refused)?;
    let mut points = Points::default();
    for part in &parts {
        // What is mounted among the inputs, or in the home directory, is in directories of the user's.
        let is_users = |above: &&Path| above.starts_with(BUILD) || above.starts_with(HOME);
        let above = part.target.parent().filter(is_users);
        if let Some(above) = above {
            make_directory(&absolute(above), &user)
                .map_err(|error| Failed::Refused(format!("cannot make `{}`: {error}", above.display())))?;
        }
        points.attach(&part.target, &part.tree, part.is_directory).map_err(Failed::Refused)?;
    }
    for path in &spec.make_directories {
        // Where the root itself is the input, they are absolute.
        make_directory(&absolute(&Path::new(BUILD).join(path)), &user)
            .map_err(|error| Failed::Refused(format!("cannot create `{path}`, the parent of an output: {error}")))?;
    }
    let directory = absolute(Path::new(&spec.working_directory));
    make_directory(&directory, &user).map_err(|error| {
        Failed::Refused(format!("cannot make the working directory `{}`: {error}", directory.display()))
    })?;
    Ok(Built { user, directory, points, stays: root.stays })
}

/// Moves into the root. Not even its mount below this one is left.
fn enter(place: &Path, tree: &OwnedFd) -> Result<(), String> {
    let words = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    let at = root::directory(place, "root")?;
    move_mount(tree, "", rustix::fs::CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| format!("cannot mount the root: {error}"))?;
    std::env::set_current_dir(&at).map_err(|error| format!("cannot enter the root: {error}"))?;
    pivot_root(".", ".").map_err(words("cannot change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(words("cannot leave the old root"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot enter the root: {error}"))
}

/// Small files that are mounted over the root's, read-only.
fn files(place: &Path, spec: &Spec) -> Result<Vec<Part>, String> {
    let directory = root::directory(place, "files")?;
    let file = |(number, (target, content)): (usize, &(PathBuf, String))| {
        let at = directory.join(number.to_string());
        fs::write(&at, content).map_err(|error| format!("cannot write `{}`: {error}", target.display()))?;
        let tree = detached(&at)?;
        restrict(&tree, true)?;
        Ok(Part { target: target.clone(), tree, is_directory: false })
    };
    spec.files.iter().enumerate().map(file).collect()
}

/// The machine's authorities, as files of the job: the one that the root's own are added to, and what is mounted.
fn trusted(place: &Path, text: &str) -> Result<(fs::File, [Part; 2]), String> {
    let directory = root::directory(place, "authorities")?;
    let part = |name: &str, target: &str, content: &str| -> Result<(fs::File, Part), String> {
        let at = directory.join(name);
        let failed = |error: std::io::Error| format!("cannot write `{target}`: {error}");
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(&at).map_err(failed)?;
        std::io::Write::write_all(&mut file, content.as_bytes()).map_err(failed)?;
        let tree = detached(&at)?;
        restrict(&tree, true)?;
        Ok((file, Part { target: target.into(), tree, is_directory: false }))
    };
    let (file, bundle) = part("bundle", authorities::BUNDLE, text)?;
    let (_, apt) = part("apt", authorities::APT, authorities::APT_CONFIGURATION)?;
    Ok((file, [bundle, apt]))
}

fn mounts(place: &Path, spec: &Spec, root: &RootSpec, overlays: &[OwnedFd]) -> Result<Vec<Part>, String> {
    let secrets = root::directory(place, "secrets")?;
    let mut parts = Vec::new();
    for (number, mount) in root.mounts.iter().enumerate() {
        let at = place.join(format!("mount-{number}"));
        let (tree, is_directory) = match &mount.what {
            What::Overlay(number) => {
                let tree = overlays.get(*number).ok_or("a mount from the worker is missing")?;
                let tree = tree.try_clone().map_err(|error| format!("cannot keep a mount: {error}"))?;
                let is_file = root.overlays.get(*number).is_some_and(|layers| layers.is_file);
                (tree, !is_file)
            }
            What::Socket(number) => {
                let tree = overlays.get(root.overlays.len() + number).ok_or("a socket from the worker is missing")?;
                (tree.try_clone().map_err(|error| format!("cannot keep a mount: {error}"))?, false)
            }
            What::Offered(number) => {
                let tree = overlays.get(root.overlays.len() + number).ok_or("what the worker offers is missing")?;
                (tree.try_clone().map_err(|error| format!("cannot keep a mount: {error}"))?, true)
            }
            What::Memory(bytes) => {
                let at = root::directory(place, &format!("mount-{number}"))?;
                let options = format!("mode=1777,size={}", bytes.unwrap_or(spec.shared_memory_bytes));
                let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                root::mounted(Some("tmpfs"), &at, Some("tmpfs"), safe, Some(&options))?;
                (detached(&at)?, true)
            }
            What::Secret(name, (mode, uid, gid)) => {
                let value = spec
                    .secrets
                    .variables()
                    .chain(spec.secrets.files())
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value);
                // Whether it must be there was decided before.
                let Some(value) = value else { continue };
                let at = secrets.join(number.to_string());
                secret(&at, value, (*mode, *uid, *gid)).map_err(|error| format!("cannot write a secret: {error}"))?;
                let tree = detached(&at)?;
                restrict(&tree, true)?;
                (tree, false)
            }
        };
        drop(at);
        parts.push(Part { target: mount.target.clone(), tree, is_directory });
    }
    Ok(parts)
}

/// Writes a secret to a file in memory.
fn secret(at: &Path, value: &str, (mode, uid, gid): (u32, u32, u32)) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(at)?;
    file.write_all(value.as_bytes())?;
    chown(at, Some(uid), Some(gid))?;
    file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))
}

fn restrict(tree: &OwnedFd, read_only: bool) -> Result<(), String> {
    syscalls::restrict_tree(tree.as_fd(), read_only, true).map_err(|error| format!("cannot restrict a mount: {error}"))
}

/// Makes a directory and those above it; they belong to the user.
pub(super) fn make_directory(path: &Path, user: &User) -> std::io::Result<()> {
    if fs::metadata(path).is_ok_and(|data| data.is_dir()) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent, user)?;
    }
    fs::DirBuilder::new().mode(0o755).create(path)?;
    chown(path, Some(user.uid), Some(user.gid))
}
