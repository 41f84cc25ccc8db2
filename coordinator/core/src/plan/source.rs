//! What the planner sees of a source tree.
//!
//! Invariant: the planner reads only files that [`wants`] names, so a shell that fetched those has fetched enough.

use std::collections::BTreeMap;

/// A source tree: its paths, and the content of the small files that decide a plan.
pub trait Source {
    /// The relative paths of all files, sorted, with `/` between the parts.
    fn paths(&self) -> &[String];
    /// The content of a file, where it is there and [`wants`] names it.
    fn read(&self, path: &str) -> Option<Vec<u8>>;
}

/// A source tree in memory.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    paths: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
}

impl MemorySource {
    /// A tree of these files.
    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        MemorySource { paths: files.keys().cloned().collect(), files }
    }

    /// A tree of the files in `files`, and of others of which only the path is known.
    pub fn with_paths(paths: impl IntoIterator<Item = String>, files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut all: Vec<String> = paths.into_iter().chain(files.keys().cloned()).collect();
        all.sort();
        all.dedup();
        MemorySource { paths: all, files }
    }
}

impl<N: Into<String>, C: Into<Vec<u8>>> FromIterator<(N, C)> for MemorySource {
    fn from_iter<I: IntoIterator<Item = (N, C)>>(files: I) -> Self {
        Self::new(files.into_iter().map(|(n, c)| (n.into(), c.into())).collect())
    }
}

impl Source for MemorySource {
    fn paths(&self) -> &[String] {
        &self.paths
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.files.get(path).cloned()
    }
}

/// True for the files that the planner may read: `kiln.toml`, manifests and lock files, known by their base name.
pub fn wants(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let parent = path.strip_suffix(name).unwrap_or("").trim_end_matches('/');
    match name {
        "kiln.toml" => parent.is_empty(),
        "Cargo.toml" | "Cargo.lock" | "rust-toolchain" | "rust-toolchain.toml" => true,
        "config.toml" | "config" => parent == ".cargo",
        "go.mod" | "go.sum" | "go.work" | "go.work.sum" => true,
        "modules.txt" => parent == "vendor",
        "pom.xml" | "build.gradle" | "build.gradle.kts" | "settings.gradle" | "settings.gradle.kts" => true,
        "gradle.properties" | "gradle.lockfile" | "gradle-wrapper.properties" | "libs.versions.toml" => true,
        "CMakeLists.txt" | "meson.build" | "Makefile" | "makefile" | "GNUmakefile" => parent.is_empty(),
        "configure.ac" | "conanfile.txt" | "conanfile.py" | "conan.lock" | "vcpkg.json" => parent.is_empty(),
        "pyproject.toml" | "setup.py" | "setup.cfg" | "uv.lock" | "poetry.lock" | ".python-version" => true,
        "PKG-INFO" => parent.is_empty(),
        "requires.txt" => parent.ends_with(".egg-info"),
        "package.json" | "package-lock.json" | "npm-shrinkwrap.json" | ".npmrc" => true,
        "pnpm-lock.yaml" | "pnpm-workspace.yaml" | "yarn.lock" | ".yarnrc.yml" | ".yarnrc" => true,
        "Gemfile" | "Gemfile.lock" | "version.rb" => true,
        _ if name.ends_with(".gemspec") => true,
        _ if name.ends_with(".java") => false,
        _ => name.starts_with("requirements") && (name.ends_with(".txt") || name.ends_with(".in")),
    }
}
