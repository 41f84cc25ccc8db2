//! What starts an artifact, so that whoever made it is told how to run it. Pure.

use kiln_proto::tree::{Entry, Tree};

use crate::builds::source::flatten;

/// What starts an artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Its path; empty where nothing starts.
    pub program: String,
    /// What it is started with; empty where it runs by itself.
    pub with: String,
}

/// What starts an artifact of that name: a program of its name, else the only one, at the place where programs are expected before any
/// other.
pub(super) fn of(tree: &Tree, name: &str) -> Start {
    let all = flatten(tree);
    let is_program = |path: &str, entry: &Entry| {
        let file = path.rsplit('/').next().unwrap_or(path);
        matches!(entry, Entry::File { executable: true, .. } | Entry::Symlink { .. }) && !file.contains(".so")
    };
    let programs: Vec<&str> =
        all.iter().filter(|(path, entry)| is_program(path, entry)).map(|(path, _)| path.as_str()).collect();
    let in_bin =
        |path: &str| path.rsplit_once('/').is_some_and(|(parent, _)| parent == "bin" || parent.ends_with("/bin"));
    let top = |path: &str| !path.contains('/');
    let named = |path: &&&str| path.rsplit('/').next() == Some(name);
    let only = |chosen: Vec<&&str>| if let [one] = chosen[..] { Some((*one).to_owned()) } else { None };
    let found = programs
        .iter()
        .filter(|path| in_bin(path) || top(path))
        .find(named)
        .map(|path| (*path).to_owned())
        .or_else(|| only(programs.iter().filter(|path| in_bin(path)).collect()))
        .or_else(|| only(programs.iter().filter(|path| top(path)).collect()))
        .or_else(|| only(programs.iter().collect()));
    if let Some(program) = found {
        return Start { program, with: String::new() };
    }
    // Without a program that runs by itself, the only JAR at the top.
    let jars: Vec<&String> =
        all.iter().map(|(path, _)| path).filter(|path| path.ends_with(".jar") && top(path)).collect();
    match jars[..] {
        [jar] if programs.is_empty() => Start { program: jar.clone(), with: "java -jar".to_owned() },
        _ => Start::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::digest::DigestFunction;

    fn start(files: &[(&str, bool)]) -> (String, String) {
        let mut tree = Tree::default();
        for (path, executable) in files {
            tree.insert(path, Entry::file(DigestFunction::Sha256.digest(path.as_bytes()), *executable)).unwrap();
        }
        let start = of(&tree, "shop");
        (start.program, start.with)
    }

    #[test]
    fn the_program_of_the_artifacts_name_starts_it_else_the_only_one() {
        let plain = |program: &str| (program.to_owned(), String::new());
        assert_eq!(start(&[("shop", true)]), plain("shop"));
        assert_eq!(start(&[("bin/shop", true), ("bin/admin", true)]), plain("bin/shop"));
        assert_eq!(start(&[("bin/app", true), ("lib/libx.so.1", true), ("tools/gen.sh", true)]), plain("bin/app"));
        assert_eq!(start(&[("usr/bin/a", true), ("usr/bin/b", true)]), plain(""));
        assert_eq!(start(&[("app.jar", false), ("lib/x.jar", false)]), ("app.jar".into(), "java -jar".into()));
        assert_eq!(start(&[("index.html", false)]), plain(""));
    }
}
