//! Combines the layers of an input tree, with overlayfs or as a copy.
//!
//! Invariant: writes to the combined tree never reach a layer.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

/// The layers of an overlay, and where writes go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overlay {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory that receives writes.
    pub upper: PathBuf,
    /// The work directory of overlayfs, on the same file system as `upper`.
    pub work: PathBuf,
    /// The directory with the content of files that a layer only names.
    pub objects: Option<PathBuf>,
}

impl Overlay {
    /// Mounts the overlay. Changes the working directory of the calling thread and of the threads that share it.
    ///
    /// `unprivileged`: in a user namespace, where overlayfs stores its metadata in `user.*` attributes.
    pub fn mount(&self, target: &Path, unprivileged: bool) -> Result<(), String> {
        let options: &[&str] = if unprivileged { &["userxattr"] } else { &[] };
        self.mount_with(target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options)
    }

    /// Mounts the overlay with these flags and options of overlayfs, as [`mount`](Self::mount) does.
    pub fn mount_with(&self, target: &Path, flags: MsFlags, more: &[&str]) -> Result<(), String> {
        let Self { lower, upper, work, objects } = self;
        // Mount options must fit into one page, so layers are named relative to their common directory.
        let base = lower.first().and_then(|first| first.parent()).unwrap_or(Path::new("/"));
        std::env::set_current_dir(base).map_err(|error| format!("cannot enter `{}`: {error}", base.display()))?;
        let name = |layer: &PathBuf| escape(layer.strip_prefix(base).unwrap_or(layer));
        let mut names = lower.iter().map(name).collect::<Result<Vec<String>, _>>()?.join(":");
        if let Some(objects) = objects {
            names = format!("{names}::{}", name(objects)?);
        }
        let mut options = format!("lowerdir={names},upperdir={},workdir={}", escape(upper)?, escape(work)?);
        for option in more {
            options.push(',');
            options.push_str(option);
        }
        mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))
            .map_err(|error| format!("cannot mount `{}`: {error}", target.display()))
    }
}

/// overlayfs separates options with commas and lower layers with colons.
fn escape(path: &Path) -> Result<String, String> {
    let text = path
        .to_str()
        .ok_or_else(|| format!("`{}` is not valid UTF-8; choose another state directory", path.display()))?;
    let mut escaped = String::new();
    for c in text.chars() {
        if matches!(c, ',' | ':' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    Ok(escaped)
}

/// Copies a tree, so that the cache cannot be changed through it.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            let modified = entry.metadata()?.modified()?;
            std::fs::File::options().append(true).open(&target)?.set_modified(modified)?;
        }
    }
    Ok(())
}
