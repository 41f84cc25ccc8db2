//! Puts the layers of an input tree together: stacked by overlayfs, or as a copy.
//!
//! Invariant: nothing that is written to the whole reaches a layer.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

/// Layers, and where what is written goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overlay {
    /// Read-only layers, the topmost first.
    pub lower: Vec<PathBuf>,
    /// Where what is written goes.
    pub upper: PathBuf,
    /// What overlayfs needs beside it, on the same file system.
    pub work: PathBuf,
}

impl Overlay {
    /// Mounts it. Changes the working directory of the calling thread, and of those that share it.
    ///
    /// `unprivileged`: in a user namespace, where overlayfs keeps its notes in other attributes.
    pub fn mount(&self, target: &Path, unprivileged: bool) -> Result<(), String> {
        let Self { lower, upper, work } = self;
        // A mount's options fit one page: layers of one directory are named from there.
        let base = lower.first().and_then(|first| first.parent()).unwrap_or(Path::new("/"));
        std::env::set_current_dir(base).map_err(|error| format!("cannot enter `{}`: {error}", base.display()))?;
        let names: Vec<String> =
            lower.iter().map(|layer| escape(layer.strip_prefix(base).unwrap_or(layer))).collect::<Result<_, _>>()?;
        let mut options = format!("lowerdir={},upperdir={},workdir={}", names.join(":"), escape(upper)?, escape(work)?);
        if unprivileged {
            options.push_str(",userxattr");
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))
            .map_err(|error| format!("cannot mount `{}`: {error}", target.display()))
    }
}

/// overlayfs separates its options with commas and its lower layers with colons.
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

/// Copies a tree, so that nothing of the cache can be written through it.
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
