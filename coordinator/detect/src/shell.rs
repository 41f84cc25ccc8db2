//! Shell functions that steps share, added to the sources as files.
//!
//! Invariant: a step that calls one of them has all of them in [`FILE`], and sources that first.

use kiln_plan::Step;

/// The path of the functions in a step.
const FILE: &str = ".kiln/functions.sh";

/// `gather`, `collect`, `note`: see `staging`.
pub(super) const GATHER: &str = include_str!("shell/gather.sh");
/// `in_parallel`, which runs a build command with one job per CPU.
pub(super) const JOBS: &str = include_str!("shell/jobs.sh");
/// `fetch_contents`, which lets CMake fetch without building.
pub(super) const FETCH: &str = include_str!("shell/fetch.sh");
/// `rootless`, `install_below`, `has_install`: install into the staging directory.
pub(super) const INSTALL: &str = include_str!("shell/install.sh");
/// `programs`, which compiles the programs of Go modules.
pub(super) const GO: &str = include_str!("shell/go.sh");

/// Files that `install_below` uses.
const INSTALL_FILES: [(&str, &str); 2] = [
    (".kiln/install-without-owners", include_str!("shell/install-without-owners.sh")),
    (".kiln/staging-shell", include_str!("shell/staging-shell.sh")),
];

/// Gives a step these functions.
pub(super) fn provide(step: &mut Step, functions: &[&str]) {
    step.files.insert(FILE.to_owned(), functions.join("\n"));
    if functions.contains(&INSTALL) {
        step.files.extend(INSTALL_FILES.map(|(path, text)| (path.to_owned(), text.to_owned())));
    }
    step.run.insert_str(0, &format!(". ./{FILE}\n"));
}
