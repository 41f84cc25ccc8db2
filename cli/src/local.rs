//! What this machine can say of a project without a farm: its plan, and its place in git.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_core::plan::{self, MemorySource, Options, Plan, Platform};

use crate::{Code, Error};
use kiln_scan::{self as scan, Kind, git};

/// A project on this machine.
pub struct Project {
    /// Its directory, absolute.
    pub root: PathBuf,
    /// The files that decide its plan.
    pub files: BTreeMap<String, Vec<u8>>,
    /// All its files and symbolic links.
    pub paths: Vec<String>,
    /// What git says.
    pub facts: git::Facts,
}

impl Project {
    /// Looks at a directory.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let root = scan::directory(dir)?;
        let facts = std::thread::scope(|scope| {
            let facts = scope.spawn(|| git::facts(&root));
            let found = scan::walk(&root, &[root.join("kiln-out")]);
            found.map(|found| (found, facts.join().unwrap_or_default()))
        });
        let (found, facts) = facts?;
        let mut files = BTreeMap::new();
        for one in found.iter().filter(|one| matches!(one.kind, Kind::File { .. }) && plan::wants(&one.path)) {
            let full = root.join(&one.path);
            let content = std::fs::read(&full).map_err(|source| scan::Error::Read { path: full, source })?;
            files.insert(one.path.clone(), content);
        }
        let paths = found.into_iter().map(|one| one.path).collect();
        Ok(Self { root, files, paths, facts })
    }

    /// The plan of a build.
    pub fn plan(&self, platforms: &[Platform], targets: &[String]) -> Result<Plan, plan::Error> {
        self.plan_from(self.files.clone(), platforms, targets)
    }

    /// The plan that its files would give without a `kiln.toml`.
    pub fn detected(&self) -> Result<Plan, plan::Error> {
        let mut files = self.files.clone();
        files.remove("kiln.toml");
        self.plan_from(files, &[], &[])
    }

    fn plan_from(
        &self,
        files: BTreeMap<String, Vec<u8>>,
        platforms: &[Platform],
        targets: &[String],
    ) -> Result<Plan, plan::Error> {
        let paths = self.paths.iter().filter(|path| !plan::wants(path) || files.contains_key(*path)).cloned();
        let source = MemorySource::with_paths(paths, files.clone());
        plan::plan(
            &source,
            &Options {
                platforms: platforms.to_vec(),
                targets: targets.to_vec(),
                host: host(),
                describe: Some(self.facts.describe.clone()).filter(|text| !text.is_empty()),
                directory_name: directory_name(&self.root),
            },
        )
    }
}

/// This machine's platform.
pub fn host() -> Platform {
    if cfg!(target_arch = "aarch64") { Platform::Arm64 } else { Platform::Amd64 }
}

/// The directory's own name, the last resort for a project's.
pub fn directory_name(root: &Path) -> String {
    root.file_name().map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Where Kiln keeps what it can make again: `$XDG_CACHE_HOME/kiln`, else `~/.cache/kiln`.
pub fn cache_dir() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|dir| dir.join("kiln"))
        .ok_or_else(|| {
            Error::Usage(
                "neither `XDG_CACHE_HOME` nor `HOME` is an absolute path; set one, for Kiln's cache".to_owned(),
            )
        })
}

/// Writes data to standard output. A reader that went away is no error.
pub fn print(data: &[u8]) -> Result<Code, Error> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Stdout(error)),
        _ => Ok(Code::Success),
    }
}

/// Prints a value as JSON on standard output.
pub fn print_json(value: &serde_json::Value) -> Result<Code, Error> {
    print(format!("{value:#}\n").as_bytes())
}
