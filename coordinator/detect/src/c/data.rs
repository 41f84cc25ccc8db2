//! Files of the tree that a program may read at run time and that no `install` includes.

use super::super::tree;
use kiln_plan::Source;

/// Directories whose files only concern developers of the project.
const ASIDE: [&str; 20] = [
    "bench",
    "benches",
    "build-aux",
    "ci",
    "cmake",
    "deps",
    "doc",
    "docs",
    "example",
    "examples",
    "external",
    "m4",
    "scripts",
    "subprojects",
    "test",
    "testdata",
    "tests",
    "third_party",
    "tools",
    "vendor",
];
/// Extensions of sources, and of files that describe the build or the project.
const SOURCES: [&str; 40] = [
    "S", "ac", "adoc", "am", "asm", "bat", "c", "c++", "cc", "cmake", "cpp", "cxx", "d", "def", "f90", "go", "h",
    "h++", "hh", "hpp", "hxx", "in", "inc", "inl", "ipp", "java", "l", "lock", "m4", "mak", "md", "mk", "o", "py",
    "rs", "rst", "s", "sh", "wrap", "y",
];
/// Prefixes of names of files that describe the project or its build.
const ABOUT: [&str; 24] = [
    "AUTHORS",
    "BUILD",
    "CHANGE",
    "CMAKELISTS",
    "CODEOWNERS",
    "CONAN",
    "CONFIGURE",
    "CONTRIBUT",
    "COPYING",
    "COPYRIGHT",
    "DOCKERFILE",
    "DOXYFILE",
    "GNUMAKEFILE",
    "HISTORY",
    "INSTALL",
    "LICENCE",
    "LICENSE",
    "MAKEFILE",
    "MESON",
    "NEWS",
    "NOTICE",
    "README",
    "TODO",
    "VERSION",
];
/// Maximum number of files named in the note.
const NAMED: usize = 3;

/// A note about them, for a build that installs nothing.
pub(super) fn note(source: &dyn Source) -> Option<String> {
    let found: Vec<&String> = source.paths().iter().filter(|path| may_be_read(path)).collect();
    let mut names: Vec<String> = found.iter().take(NAMED).map(|path| format!("`{path}`")).collect();
    match found.len().checked_sub(NAMED) {
        None | Some(0) => {}
        Some(more) => names.push(format!("{more} more")),
    }
    (!found.is_empty()).then(|| {
        format!(
            "nothing was installed, so the artifact only has the programs and libraries that the build made; \
             left out: {}; an `install` that honours DESTDIR would include them",
            names.join(", ")
        )
    })
}

fn may_be_read(path: &str) -> bool {
    let name = tree::base(path);
    let hidden = path.split('/').any(|part| part.starts_with('.'));
    let aside = path.split('/').rev().skip(1).any(|part| ASIDE.contains(&part.to_ascii_lowercase().as_str()));
    let about = ABOUT.iter().any(|word| name.to_ascii_uppercase().starts_with(word));
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    !hidden && !aside && !about && path != "kiln.toml" && extension.is_some_and(|e| !SOURCES.contains(&e))
}
