//! Shared libraries that an artifact's executables need and that neither it nor its target has: reports them with a
//! fix, or includes them.
//!
//! Libraries are copied from the system that the executables were built on. They go into one directory next to the
//! programs, and each ELF file that needs one gets a search path relative to itself (`$ORIGIN`, see ld.so(8)), so that
//! the artifact runs wherever it is unpacked. A program whose ELF layout has no space for a search path is replaced by
//! a script that sets it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use async_trait::async_trait;
use kiln_planner::plan::default_libraries;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::tree::{Entry, Tree};

use super::assemble::{Error, Ingredients};
use super::{Material, check};
use crate::elf::Wants;

/// Parts of the C library besides those that every target is assumed to have: they only work with the loader that they
/// came with.
const LIBC: &[&str] = &[
    "libBrokenLocale.so.1",
    "libanl.so.1",
    "libc_malloc_debug.so.0",
    "libmvec.so.1",
    "libnsl.so.1",
    "libnss_compat.so.2",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libthread_db.so.1",
];

/// Shared libraries of the system that an artifact's steps ran on.
#[async_trait]
pub trait System: Debug + Send + Sync {
    /// Looks up the libraries that these ELF files of an artifact need, and those that these need in turn. With `copy`,
    /// also their content, except of those in `skip`.
    async fn libraries(
        &self,
        artifact: &Tree,
        files: &[String],
        skip: &BTreeSet<String>,
        copy: bool,
    ) -> Result<Found, Error>;

    /// The system's name, such as `debian:12`.
    fn name(&self) -> &str;
}

/// The result of looking up libraries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Each library's path on the system.
    pub paths: BTreeMap<String, String>,
    /// The content of those that were copied.
    pub copies: BTreeMap<String, Digest>,
    /// Libraries that were not found.
    pub absent: BTreeSet<String>,
}

/// An artifact whose libraries have been resolved.
#[derive(Debug, Default)]
pub(super) struct Supplied {
    /// Its files, including the libraries copied into it.
    pub(super) tree: Tree,
    /// What its ELF files require now.
    pub(super) wants: BTreeMap<String, Wants>,
    /// Libraries of the system that it is assumed to run on.
    pub(super) there: BTreeSet<String>,
    /// The origin of the libraries copied into it.
    pub(super) materials: Vec<Material>,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// The libraries that ELF files need and that are in neither of these sets.
pub(super) fn missing(wants: &BTreeMap<String, Wants>, there: [&BTreeSet<String>; 2]) -> BTreeSet<String> {
    let needed = wants.values().flat_map(|wants| &wants.needed);
    needed.filter(|name| !there.iter().any(|names| names.contains(*name))).cloned().collect()
}

/// Changes to `kiln.toml` that fix missing libraries.
pub(super) fn fixes(given: &Ingredients<'_>, missing: &BTreeSet<String>) -> String {
    let name = if given.target.is_declared() { given.target.name.as_str() } else { "production" };
    let names: Vec<String> = missing.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        "to include them, write in kiln.toml\n\n    [artifacts.{}]\n    bundle_libraries = true\n\nor, if production has them,\
         \n\n    [targets.{name}]\n    libraries = [{}]\n",
        key(&given.artifact.name),
        names.join(", ")
    )
}

fn key(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if plain { name.to_owned() } else { format!("\"{name}\"") }
}

/// Includes missing libraries if the artifact says so; otherwise reports those that only the build system has.
pub(super) async fn supply(
    given: &Ingredients<'_>,
    tree: Tree,
    wants: BTreeMap<String, Wants>,
    missing: &BTreeSet<String>,
) -> Result<Supplied, Error> {
    let mut skip: BTreeSet<String> = given.target.libraries.iter().cloned().chain(default_libraries()).collect();
    skip.extend(LIBC.iter().map(|name| (*name).to_owned()));
    let files: Vec<String> = wants.keys().cloned().collect();
    let copy = given.artifact.bundle_libraries;
    let found = given.system.libraries(&tree, &files, &skip, copy).await?;
    if copy {
        return carry(given, tree, wants, missing, &skip, &found).await;
    }
    let there: BTreeSet<String> = missing.iter().filter(|name| found.paths.contains_key(*name)).cloned().collect();
    let mut notes = Vec::new();
    if !there.is_empty() {
        let names: Vec<&str> = there.iter().map(String::as_str).collect();
        notes.push(format!(
            "artifact `{}` needs {} of the system that it was built on ({}), and will only run where they are installed; {}",
            given.artifact.name,
            names.join(", "),
            given.system.name(),
            fixes(given, &there)
        ));
    }
    Ok(Supplied { tree, wants, there, notes, ..Supplied::default() })
}

async fn carry(
    given: &Ingredients<'_>,
    mut tree: Tree,
    mut wants: BTreeMap<String, Wants>,
    missing: &BTreeSet<String>,
    skip: &BTreeSet<String>,
    found: &Found,
) -> Result<Supplied, Error> {
    let store = &*given.stores.blobs;
    let refused = |reason: String| Error::Layout { artifact: given.artifact.name.clone(), reason };
    let directory = directory(&wants);
    let own = check::carried(&tree);
    let mut wanted: Vec<String> = missing.iter().filter(|name| !skip.contains(*name)).cloned().collect();
    let (mut carried, mut materials) = (BTreeSet::new(), Vec::new());
    while let Some(name) = wanted.pop() {
        // A library that was not found is reported by the check.
        let Some(digest) = found.copies.get(&name) else { continue };
        if !carried.insert(name.clone()) {
            continue;
        }
        let data = store.get(digest).await?;
        let needs = crate::elf::read(&data).map_err(|error| refused(format!("library `{name}`: {error}")))?;
        let others = needs.needed.iter().filter(|name| !skip.contains(*name) && !own.contains(*name));
        wanted.extend(others.cloned());
        if digest.function == DigestFunction::Sha256 {
            let path = found.paths.get(&name).map(String::as_str).unwrap_or_default();
            materials.push(Material { name: String::new(), uri: format!("file://{path}"), sha256: digest.hex() });
        }
        let place = format!("{directory}/{name}");
        tree.insert(&place, Entry::file(*digest, false)).map_err(|error| refused(error.to_string()))?;
        wants.insert(place, needs);
    }
    materials.sort_by(|a, b| a.uri.cmp(&b.uri));
    let needing: Vec<(String, Wants)> = wants
        .iter()
        .filter(|(_, of)| of.needed.iter().any(|name| carried.contains(name)))
        .map(|(path, of)| (path.clone(), of.clone()))
        .collect();
    for (path, of) in needing {
        let Some(Entry::File { digest, executable, mode }) = tree.get(&path).cloned() else { continue };
        let data = store.get(&digest).await?;
        let search = origin(&path, &directory);
        let changed = tokio::task::spawn_blocking(move || with_search_path(&data, &search)).await;
        let changed = changed.map_err(|error| Error::Pack(std::io::Error::other(error)))?;
        // Nothing else may have changed.
        let is_same = |data: &Vec<u8>| {
            crate::elf::read(data).is_ok_and(|now| now.machine == of.machine && now.needed == of.needed)
        };
        let new = match changed.ok().filter(is_same) {
            Some(changed) => changed,
            // Some linkers leave no space for a search path: such a program is started by a script that sets it.
            None if executable => {
                let behind = behind(&path);
                let program = Entry::File { digest, executable, mode };
                tree.insert(&behind, program).map_err(|error| refused(error.to_string()))?;
                if let Some(of) = wants.remove(&path) {
                    wants.insert(behind.clone(), of);
                }
                script(&path, &behind, &directory).into_bytes()
            }
            None => {
                return Err(refused(format!(
                    "cannot set a search path in `{path}` for the libraries that it needs; link it with \
                     `-Wl,-rpath,'{}'`, or remove `bundle_libraries`",
                    origin(&path, &directory)
                )));
            }
        };
        let digest = given.function.digest(&new);
        store.put(&digest, new.into()).await?;
        tree.replace(&path, Entry::File { digest, executable, mode }).map_err(|error| refused(error.to_string()))?;
    }
    Ok(Supplied { tree, wants, there: BTreeSet::new(), materials, notes: Vec::new() })
}

/// The new path of a program that is started by a script.
fn behind(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((directory, name)) => format!("{directory}/.{name}.bin"),
        None => format!(".{path}.bin"),
    }
}

/// A script that starts a program with its libraries.
fn script(path: &str, behind: &str, directory: &str) -> String {
    let search = origin(path, directory).replacen("$ORIGIN", "$here", 1);
    let name = behind.rsplit('/').next().unwrap_or(behind).replace('\'', "'\\''");
    format!(
        "#!/bin/sh\nhere=$(dirname -- \"$(readlink -f -- \"$0\")\")\n\
         LD_LIBRARY_PATH=\"{search}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\nexport LD_LIBRARY_PATH\n\
         exec \"$here\"/'{name}' \"$@\"\n"
    )
}

/// The directory for included libraries: `lib` next to the programs, or next to the `bin` that contains them.
fn directory(wants: &BTreeMap<String, Wants>) -> String {
    let is_library = |path: &str| path.rsplit('/').next().is_some_and(|name| name.contains(".so"));
    let of = |path: &String| {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let (above, last) = parent.rsplit_once('/').unwrap_or(("", parent));
        let base = if matches!(last, "bin" | "sbin" | "libexec") { above } else { parent };
        if base.is_empty() { "lib".to_owned() } else { format!("{base}/lib") }
    };
    let places: BTreeSet<String> = wants.keys().filter(|path| !is_library(path)).map(of).collect();
    let mut places = places.into_iter();
    match (places.next(), places.next()) {
        (Some(only), None) => only,
        _ => "lib".to_owned(),
    }
}

/// The search path from a file to a directory of the same artifact.
fn origin(file: &str, directory: &str) -> String {
    let from = || file.rsplit_once('/').into_iter().flat_map(|(parent, _)| parent.split('/'));
    let common = from().zip(directory.split('/')).take_while(|(a, b)| a == b).count();
    let up = from().skip(common).map(|_| "..");
    std::iter::once("$ORIGIN").chain(up).chain(directory.split('/').skip(common)).collect::<Vec<_>>().join("/")
}

/// An ELF file with an additional search path for libraries.
fn with_search_path(data: &[u8], path: &str) -> Result<Vec<u8>, object_rewrite::Error> {
    let mut rewriter = object_rewrite::Rewriter::read(data)?;
    rewriter.elf_add_runpath(&[path.as_bytes().to_vec()])?;
    let mut out = Vec::with_capacity(data.len().saturating_add(4096));
    rewriter.write(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(paths: &[&str]) -> String {
        directory(&paths.iter().map(|path| ((*path).to_owned(), Wants::default())).collect())
    }

    #[test]
    fn libraries_lie_beside_the_programs_and_are_found_from_wherever_one_is() {
        assert_eq!(of(&["jq"]), "lib");
        assert_eq!(of(&["bin/jq"]), "lib");
        assert_eq!(of(&["usr/local/bin/jq", "usr/local/lib/libjq.so.1"]), "usr/local/lib");
        assert_eq!(of(&["usr/bin/a", "opt/b"]), "lib");
        assert_eq!(origin("jq", "lib"), "$ORIGIN/lib");
        assert_eq!(origin("bin/jq", "lib"), "$ORIGIN/../lib");
        assert_eq!(origin("usr/lib/libjq.so.1", "usr/lib"), "$ORIGIN");
        assert_eq!(origin("usr/lib/plugins/a.so", "usr/lib"), "$ORIGIN/..");
    }

    fn install(path: &std::path::Path, data: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }

    /// Runs a program that was just written. A process that another test starts at this moment has it open until it executes.
    fn output(command: &mut std::process::Command) -> std::process::Output {
        loop {
            match command.output() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                output => return output.unwrap(),
            }
        }
    }

    #[test]
    fn a_program_with_another_search_path_still_runs() {
        let changed = with_search_path(&std::fs::read("/bin/ls").unwrap(), "$ORIGIN/../lib").unwrap();
        assert!(changed.windows(14).any(|part| part == b"$ORIGIN/../lib"));
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("ls");
        install(&program, &changed);
        let ran = output(std::process::Command::new(&program).arg(directory.path()));
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "ls\n", "{ran:?}");
    }

    #[test]
    fn a_program_that_takes_no_search_path_is_started_by_a_script() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        install(&at("bin/it's"), script("bin/it's", &behind("bin/it's"), "lib").as_bytes());
        install(&at("bin/.it's.bin"), b"#!/bin/sh\necho \"$1 $LD_LIBRARY_PATH\"\n");
        std::os::unix::fs::symlink("bin/it's", at("link")).unwrap();
        let mut command = std::process::Command::new(at("link"));
        let ran = output(command.arg("a b").env_remove("LD_LIBRARY_PATH"));
        let here = directory.path().canonicalize().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), format!("a b {}/bin/../lib\n", here.display()), "{ran:?}");
    }
}
