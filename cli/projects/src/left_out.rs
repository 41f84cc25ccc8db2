//! Explains which files of a directory are not part of a build.

use std::path::Path;

use kiln_scan::{LeftOut, Why, git};

/// Maximum number of paths listed for each reason.
const SHOWN: usize = 6;

/// Manifests, with the lock files that may be next to them.
const LOCKS: &[(&str, &[&str])] = &[
    ("Cargo.toml", &["Cargo.lock"]),
    ("package.json", &["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock"]),
    ("deno.json", &["deno.lock"]),
    ("deno.jsonc", &["deno.lock"]),
    ("composer.json", &["composer.lock"]),
    ("Pipfile", &["Pipfile.lock"]),
    ("pyproject.toml", &["uv.lock", "poetry.lock"]),
    ("go.mod", &["go.sum"]),
    ("go.work", &["go.work.sum"]),
    ("Gemfile", &["Gemfile.lock"]),
    ("conanfile.txt", &["conan.lock"]),
    ("conanfile.py", &["conan.lock"]),
    ("build.gradle", &["gradle.lockfile"]),
    ("build.gradle.kts", &["gradle.lockfile"]),
];

/// The lock files next to a manifest of the tree that are not in the tree themselves. `paths` are the tree's, sorted.
pub fn ignored_locks(root: &Path, paths: &[String]) -> Vec<String> {
    let mut ignored = Vec::new();
    for path in paths {
        let (directory, name) =
            path.rsplit_once('/').map_or(("", path.as_str()), |(directory, name)| (directory, name));
        let Some((_, locks)) = LOCKS.iter().find(|(manifest, _)| *manifest == name) else { continue };
        for lock in *locks {
            let lock = if directory.is_empty() { (*lock).to_owned() } else { format!("{directory}/{lock}") };
            if paths.binary_search(&lock).is_err() && root.join(&lock).is_file() {
                ignored.push(lock);
            }
        }
    }
    ignored.sort();
    ignored.dedup();
    ignored
}

/// A sentence for each reason why files were left out of a tree. Asks git which files it ignores.
pub fn words(root: &Path, left_out: &[LeftOut]) -> Vec<String> {
    let of =
        |why: Why| -> Vec<&str> { left_out.iter().filter(|one| one.why == why).map(|one| one.path.as_str()).collect() };
    let ignored = git::ignored(root).unwrap_or_default();
    let ignored: Vec<&str> = ignored
        .iter()
        .map(String::as_str)
        .filter(|path| !left_out.iter().any(|one| one.path == path.trim_end_matches('/')))
        .collect();
    let reasons = [
        (ignored, "ignored by git (`git add -f` adds a file)"),
        (of(Why::KilnIgnore), "listed in `.kilnignore`"),
        (of(Why::Environment), "settings of this machine, and often secret"),
        (of(Why::Made), "created by tools, and recreated by the build"),
    ];
    reasons.iter().filter(|(paths, _)| !paths.is_empty()).map(|(paths, why)| sentence(paths, why)).collect()
}

fn sentence(paths: &[&str], why: &str) -> String {
    let mut shown: Vec<String> = paths.iter().take(SHOWN).map(|path| format!("`{path}`")).collect();
    if paths.len() > SHOWN {
        shown.push(format!("{} more", paths.len().saturating_sub(SHOWN)));
    }
    let count = kiln_terminal::count(paths.len(), "path");
    format!("left out {count} {why}: {}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_beside_a_manifest_that_is_not_in_the_tree_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["Cargo.lock", "web/yarn.lock", "web/package-lock.json", "other.lock"] {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), "").unwrap();
        }
        let paths = ["Cargo.toml", "web/package-lock.json", "web/package.json"].map(str::to_owned);
        assert_eq!(ignored_locks(dir.path(), &paths), ["Cargo.lock", "web/yarn.lock"]);
    }

    #[test]
    fn many_paths_are_counted_and_a_few_named() {
        let left_out: Vec<LeftOut> =
            (0..9).map(|number| LeftOut { path: format!("a{number}"), why: Why::KilnIgnore }).collect();
        let dir = tempfile::tempdir().unwrap();
        let expected = "left out 9 paths listed in `.kilnignore`: `a0`, `a1`, `a2`, `a3`, `a4`, `a5`, 3 more";
        assert_eq!(words(dir.path(), &left_out), [expected]);
    }
}
