//! Which of a step's files are its own.

use std::path::{Path, PathBuf};

use kiln_call::DIRECTORY;
use kiln_executor::{BUILD, Rooted};

/// What a step that changes its root does not keep there: what the kernel shows, temporary files, and what the worker offers.
const NOT_OF_ROOT: [&str; 6] = ["/proc", "/sys", "/dev", "/tmp", "/run", DIRECTORY];

/// Where a step has its inputs, and writes what it makes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    /// In the directory of its inputs. Everything else is the system.
    Build,
    /// In the whole root, which is the step's input and, with what it changes, its result.
    Root,
}

impl Area {
    /// Of a job in a root.
    pub(super) fn of(rooted: &Rooted) -> Self {
        if rooted.inputs.is_some() { Self::Build } else { Self::Root }
    }

    /// The directory.
    pub(super) fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Build => BUILD,
            Self::Root => "/",
        })
    }

    /// Whether a path, absolute and without `..`, is in it.
    pub(super) fn has(self, path: &Path) -> bool {
        match self {
            Self::Build => path.starts_with(BUILD),
            Self::Root => path.is_absolute() && !NOT_OF_ROOT.iter().any(|other| path.starts_with(other)),
        }
    }

    /// A path in it, relative to its directory.
    pub(super) fn below(self, path: &Path) -> Option<&Path> {
        path.strip_prefix(self.path()).ok().filter(|_| self.has(path))
    }

    /// The absolute path of one that is relative to its directory.
    pub(super) fn join(self, below: &Path) -> PathBuf {
        self.path().join(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_an_area_is_found_again_and_one_outside_is_not_in_it() {
        for (area, path, below) in [
            (Area::Build, "/build/src/a.c", Some("src/a.c")),
            (Area::Build, "/builds/a.c", None),
            (Area::Build, "/usr/include/stdio.h", None),
            (Area::Root, "/src/a.c", Some("src/a.c")),
            (Area::Root, "/usr/include/stdio.h", Some("usr/include/stdio.h")),
            (Area::Root, "/tmp/cc1.s", None),
            (Area::Root, "/proc/self/exe", None),
            (Area::Root, "relative", None),
        ] {
            assert_eq!(area.below(Path::new(path)), below.map(Path::new), "{area:?} {path}");
            if let Some(below) = below {
                assert_eq!(area.join(Path::new(below)), Path::new(path));
            }
        }
    }
}
