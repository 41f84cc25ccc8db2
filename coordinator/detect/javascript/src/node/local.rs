//! Paths of the tree that a manifest depends on: tarballs, directories, patches.
//!
//! Package managers treat `file:` with a directory differently: npm links it and installs its dependencies, the others
//! copy it. A copied directory is an input of the layer with all its files, a linked one only with its manifest.

use serde_json::Value;

use super::{
    super::{Error, tree},
    locks::Tool,
    manifest::{Package, yaml},
};
use kiln_plan::Source;

/// How a package manager uses a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    /// As a file: a tarball or a patch.
    File,
    /// By copying the directory.
    Copy,
    /// By linking to the directory.
    Link {
        /// Whether its dependencies are installed.
        installed: bool,
    },
}

/// A path of the tree that a manifest names.
pub(super) struct Found {
    /// Its name there.
    pub(super) name: String,
    /// Its path relative to the root of the tree. It may not exist.
    pub(super) path: String,
    pub(super) kind: Local,
}

/// The paths of the tree that one package depends on.
pub(super) fn of(source: &dyn Source, package: &Package, tool: Tool) -> Vec<Found> {
    let replaced = ["resolutions", "overrides"].into_iter().map(|key| package.content.get(key));
    let replaced = replaced.chain([package.content.get("pnpm").and_then(|pnpm| pnpm.get("overrides"))]);
    let replaced = replaced.flatten().filter_map(Value::as_object).flatten();
    let replaced = replaced.filter_map(|(name, range)| Some((name.as_str(), range.as_str()?)));
    let named = package.dependencies().map(|(_, name, range)| (name, range)).chain(replaced);
    named
        .filter_map(|(name, range)| {
            let (path, kind) = path_of(source, range, tool)?;
            let directory = if path.starts_with("~/") { "" } else { package.directory.as_str() };
            let path = tree::join(directory, path.trim_start_matches("~/"))?;
            Some(Found { name: name.to_owned(), path, kind })
        })
        .collect()
}

/// The path that a range refers to, if any.
fn path_of<'a>(source: &dyn Source, range: &'a str, tool: Tool) -> Option<(&'a str, Local)> {
    let archive = |path: &str| [".tgz", ".tar.gz", ".tar"].iter().any(|end| path.ends_with(end));
    let (scheme, path) = match range.split_once(':') {
        Some((scheme, path)) => (scheme, path),
        None if range.starts_with("./") || range.starts_with("../") || archive(range) => ("file", range),
        None => return None,
    };
    let path = path.split("::").next().unwrap_or(path);
    let kind = match scheme {
        "file" if archive(path) => Local::File,
        "file" if tool == Tool::Npm && !npm_copies(source) => Local::Link { installed: true },
        "file" => Local::Copy,
        "link" => Local::Link { installed: false },
        "portal" => Local::Link { installed: true },
        "exec" => Local::File,
        // Yarn's built-in patches have no path.
        "patch" => return Some((path.split_once('#')?.1, Local::File)).filter(|(path, _)| !path.contains("builtin")),
        _ => return None,
    };
    Some((path, kind))
}

/// Whether npm is configured to copy directories.
fn npm_copies(source: &dyn Source) -> bool {
    let settings = tree::text(source, ".npmrc").unwrap_or_default();
    settings.lines().any(|line| line.replace(' ', "") == "install-links=true")
}

/// The layer's inputs besides manifests and lock file: what the packages refer to, and what copied ones refer to in turn.
pub(super) fn inputs(source: &dyn Source, packages: &[Package], tool: Tool) -> Result<Vec<String>, Error> {
    let mut inputs = match packages.first() {
        Some(root) => patches(source, root)?,
        None => Vec::new(),
    };
    let mut copied: Vec<Package> = Vec::new();
    for package in packages {
        add(source, package, tool, &mut inputs, &mut copied)?;
    }
    while let Some(package) = copied.pop() {
        add(source, &package, tool, &mut inputs, &mut copied)?;
    }
    inputs.extend(mirror(source));
    Ok(inputs)
}

fn add(
    source: &dyn Source,
    package: &Package,
    tool: Tool,
    inputs: &mut Vec<String>,
    copied: &mut Vec<Package>,
) -> Result<(), Error> {
    for found in of(source, package, tool) {
        let there = tree::has(source, &found.path) || tree::has_directory(source, &found.path);
        if !there {
            let (manifest, name, path) = (package.manifest.clone(), found.name, found.path);
            return Err(Error::LocalDependency { manifest, name, path });
        }
        if matches!(found.kind, Local::Link { .. }) || found.path.is_empty() || inputs.contains(&found.path) {
            continue;
        }
        if found.kind == Local::Copy {
            let manifest = format!("{}/package.json", found.path);
            if let Some(content) = tree::json(source, &manifest)? {
                copied.push(Package { directory: found.path.clone(), manifest, content, installed: false });
            }
            if tree::has_directory(source, &format!("{}/node_modules", found.path)) {
                inputs.push(format!("!{}/node_modules", found.path));
            }
        }
        inputs.push(found.path);
    }
    Ok(())
}

/// The patches that pnpm applies.
fn patches(source: &dyn Source, root: &Package) -> Result<Vec<String>, Error> {
    let yaml = yaml(source, "pnpm-workspace.yaml")?;
    let tables = [root.content.get("pnpm"), yaml.as_ref()];
    let tables = tables.into_iter().flatten().filter_map(|t| t.get("patchedDependencies")?.as_object());
    let paths = tables.flatten().filter_map(|(_, path)| tree::join("", path.as_str()?));
    Ok(paths.filter(|path| tree::has(source, path)).collect())
}

/// The directory of tarballs that Yarn 1 installs from.
fn mirror(source: &dyn Source) -> Option<String> {
    let settings = tree::text(source, ".yarnrc")?;
    let value = settings.lines().find_map(|line| line.trim().strip_prefix("yarn-offline-mirror "))?;
    let path = tree::join("", value.trim().trim_matches('"'))?;
    Some(path).filter(|path| tree::has_directory(source, path))
}
