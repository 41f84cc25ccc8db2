//! What is known about a project without a farm: its plan and its state in git.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_context::Context;
use kiln_planner::plan::{self, MemorySource, Options, Plan, Platform, Scope};

use crate::left_out;
use kiln_proto::digest::DigestFunction;
use kiln_scan::{self as scan, git};

/// A local project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its directory, an absolute path.
    pub dir: PathBuf,
    /// The root of the tree that is built, an absolute path: the directory or one above it.
    pub root: PathBuf,
    /// The project's directory in that tree; empty for the root.
    pub directory: String,
    /// All files and symbolic links of the tree.
    pub paths: Vec<String>,
    /// What is left out in addition to what git ignores.
    pub left_out: Vec<scan::LeftOut>,
    /// Existing lock files that are ignored.
    pub ignored: Vec<String>,
    /// Facts from git.
    pub facts: git::Facts,
}

impl Project {
    /// Reads a directory.
    pub fn open(dir: &Path) -> Result<Self, scan::Error> {
        Self::open_for(dir, None)
    }

    /// Reads a directory that a Dockerfile may be built in, the one that is named or the project's own.
    pub fn open_for(dir: &Path, dockerfile: Option<plan::Dockerfile>) -> Result<Self, scan::Error> {
        let dir = scan::directory(dir)?;
        let Context { root, project: directory, parts } = kiln_context::of(&dir);
        let (walked, facts) = std::thread::scope(|scope| {
            let facts = scope.spawn(|| git::facts(&root, &parts));
            let walked = scan::walk(&root, &parts);
            (walked, facts.join().unwrap_or_default())
        });
        let options = Options { dockerfile, directory: directory.clone(), ..Options::new(host()) };
        let alone =
            kiln_contexts::project::Project::new(root.clone(), DigestFunction::Sha256, options).of_dockerfiles();
        let (paths, left_out) = match (walked, alone) {
            // Dockerfiles see what git ignores, and nothing is wrong with links and sockets.
            (walked, Some(alone)) => {
                let found = walked.unwrap_or_default().found.into_iter().map(|one| one.path);
                let mut paths: Vec<String> = found.chain(alone.paths).collect();
                paths.sort();
                paths.dedup();
                (paths, Vec::new())
            }
            (walked, None) => {
                let walked = walked?;
                (walked.found.into_iter().map(|one| one.path).collect(), walked.left_out)
            }
        };
        let ignored = left_out::ignored_locks(&root, &paths);
        Ok(Self { dir, root, directory, paths, left_out, ignored, facts })
    }

    /// The plan of a build without options.
    pub fn plan(&self) -> Result<Plan, plan::Error> {
        self.plan_for(&self.options(), Scope::Build)
    }

    /// The plan with these options, of a build or of tests.
    pub fn plan_for(&self, options: &Options, scope: Scope) -> Result<Plan, plan::Error> {
        self.plan_from(self.paths.clone(), options, scope)
    }

    /// The options of a caller on this machine without other wishes.
    pub fn options(&self) -> Options {
        Options {
            describe: Some(self.facts.describe.clone()).filter(|text| !text.is_empty()),
            directory_name: directory_name(&self.dir),
            directory: self.directory.clone(),
            ignored: self.ignored.clone(),
            ..Options::new(host())
        }
    }

    /// The plan that its files would yield without a `kiln.toml`.
    pub fn detected(&self) -> Result<Plan, plan::Error> {
        let own =
            if self.directory.is_empty() { "kiln.toml".to_owned() } else { format!("{}/kiln.toml", self.directory) };
        let paths = self.paths.iter().filter(|path| **path != own).cloned().collect();
        self.plan_from(paths, &self.options(), Scope::Build)
    }

    /// The plan, with paths relative to the project's own directory as in its `kiln.toml`; `None` if that directory is
    /// a workspace member, because the plan is the workspace's.
    pub fn plan_in_place(&self, options: &Options, scope: Scope) -> Result<Option<Plan>, plan::Error> {
        let plan = self.plan_from(self.paths.clone(), options, scope)?;
        if self.directory.is_empty() {
            return Ok(Some(plan));
        }
        let moved =
            |step: &plan::Step| step.working_directory.as_ref().is_some_and(|at| at.starts_with(&self.directory));
        if !plan.steps.iter().all(moved) {
            return Ok(None);
        }
        let own = format!("{}/", self.directory);
        let paths = self.paths.iter().filter_map(|path| path.strip_prefix(&own)).map(str::to_owned).collect();
        let here = Self { root: self.dir.clone(), directory: String::new(), paths, ..self.clone() };
        let paths = here.paths.clone();
        here.plan_from(paths, &here.options(), scope).map(Some)
    }

    fn plan_from(&self, paths: Vec<String>, options: &Options, scope: Scope) -> Result<Plan, plan::Error> {
        let mut source = MemorySource::with_paths(paths, BTreeMap::new());
        loop {
            let plan = plan::plan_for(&source, options, scope);
            let unread = source.unread();
            if unread.is_empty() {
                return plan;
            }
            for path in unread {
                let content = std::fs::read(self.root.join(&path)).ok();
                source.supply(path, content);
            }
        }
    }
}

/// This machine's platform.
pub fn host() -> Platform {
    if cfg!(target_arch = "aarch64") { Platform::Arm64 } else { Platform::Amd64 }
}

/// The directory's own name, the last resort for a project's name.
pub fn directory_name(root: &Path) -> String {
    root.file_name().map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned())
}
