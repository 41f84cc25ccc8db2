//! `kiln docker build` in the place of `docker build`: the same images, outputs, files and exit codes, on a farm of real processes.

#![allow(clippy::unwrap_used)]

mod boms;
mod contexts;
mod go;
mod images;
mod lines;
mod outputs;
mod ssh;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use kiln_harness::bases::busybox_layout;
use kiln_harness::{Farm, Ran, project, write};
use serde_json::Value;

/// A directory with a Dockerfile and other files, and busybox as an OCI layout beside it in `base`.
struct Project {
    dir: tempfile::TempDir,
    base: tempfile::TempDir,
}

impl Project {
    /// `None` if there is no busybox.
    fn new(dockerfile: &str, files: &[(&str, &str)]) -> Option<Self> {
        let dir = project(&[("Dockerfile", dockerfile)]);
        for (path, text) in files {
            write(dir.path(), path, text);
        }
        let base = tempfile::tempdir().unwrap();
        busybox_layout(base.path())?;
        Some(Self { dir, base })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The argument that gives busybox the name `base`.
    fn base(&self) -> String {
        format!("--build-context=base=oci-layout://{}", self.base.path().display())
    }

    fn command(&self, farm: &Farm, line: &[&str]) -> Command {
        let base = self.base();
        let mut command = farm.command(&[&["docker", "build", &base], line].concat());
        command.current_dir(self.path());
        command
    }

    fn build(&self, farm: &Farm, line: &[&str]) -> Ran {
        Ran::from(self.command(farm, line))
    }

    #[track_caller]
    fn well(&self, farm: &Farm, line: &[&str]) -> Ran {
        well(self.build(farm, line))
    }
}

#[track_caller]
fn well(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "expected a success, found\n{}\n{}", ran.out, ran.err);
    ran
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn opened(path: &Path) -> File {
    File::open(path).unwrap()
}
