//! Determines how an artifact is started, to tell the user how to run it. Pure.

use kiln_trees::tree::{self, Entry, Tree};

use kiln_store::trees::flatten;

/// How an artifact is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Its path; empty if there is nothing to start.
    pub program: String,
    /// The interpreter; empty if it is executable itself.
    pub with: String,
}

/// Files at the top level that an interpreter runs, most likely first.
const INTERPRETED: [(&str, &str); 6] = [
    ("manage.py", "python3"),
    ("main.py", "python3"),
    ("app.py", "python3"),
    ("server.py", "python3"),
    ("run.py", "python3"),
    ("main.rb", "ruby"),
];

/// Finds an artifact's program: one with the artifact's name, else a file that usually starts an application, else the
/// only program. The usual places for programs are searched first.
pub(super) fn of(tree: &Tree, name: &str) -> Start {
    let all = flatten(tree);
    let is_program = |path: &str, entry: &Entry| {
        let file = path.rsplit('/').next().unwrap_or(path);
        let runs = match entry {
            Entry::File { executable, .. } => *executable,
            // A link that leaves the artifact may lead to a program; a link to a directory or a module does not.
            Entry::Symlink { target } => match beside(path, target) {
                Some(target) => matches!(tree.get(&target), Some(Entry::File { executable: true, .. })),
                None => true,
            },
            _ => false,
        };
        runs && !file.contains(".so")
    };
    // A link is a name for the program that it leads to.
    let linked: Vec<String> = all
        .iter()
        .filter_map(|(path, entry)| match entry {
            Entry::Symlink { target } => beside(path, target),
            _ => None,
        })
        .collect();
    let programs: Vec<&str> = all
        .iter()
        .filter(|(path, entry)| is_program(path, entry) && !linked.contains(path) && !is_installed(path))
        .map(|(path, _)| path.as_str())
        .collect();
    let in_bin =
        |path: &str| path.rsplit_once('/').is_some_and(|(parent, _)| parent == "bin" || parent.ends_with("/bin"));
    let top = |path: &str| !path.contains('/');
    let named = |path: &&&str| path.rsplit('/').next() == Some(name);
    let only = |chosen: Vec<&&str>| if let [one] = chosen[..] { Some((*one).to_owned()) } else { None };
    let found = programs.iter().filter(|path| in_bin(path) || top(path)).find(named).map(|path| (*path).to_owned());
    let interpreted = INTERPRETED.iter().find(|(file, _)| all.iter().any(|(path, _)| path == file));
    if let (None, Some((file, with))) = (&found, interpreted) {
        return Start { program: (*file).to_owned(), with: (*with).to_owned() };
    }
    let found = found
        .or_else(|| only(programs.iter().filter(|path| in_bin(path)).collect()))
        .or_else(|| only(programs.iter().filter(|path| top(path)).collect()))
        .or_else(|| only(programs.iter().collect()));
    if let Some(program) = found {
        return Start { program, with: String::new() };
    }
    // Without an executable program, the only JAR at the top level.
    let jars: Vec<&String> =
        all.iter().map(|(path, _)| path).filter(|path| path.ends_with(".jar") && top(path)).collect();
    match jars[..] {
        [jar] if programs.is_empty() => Start { program: jar.clone(), with: "java -jar".to_owned() },
        _ => Start::default(),
    }
}

/// Whether a path is in an installed Node package, whose commands are not the artifact's.
fn is_installed(path: &str) -> bool {
    path == ".pnp.cjs" || path.split('/').any(|part| part == "node_modules")
}

/// A link's target relative to the root of the tree; `None` if it leaves it.
fn beside(path: &str, target: &str) -> Option<String> {
    tree::resolve(path.rsplit_once('/').map_or("", |(parent, _)| parent), target)
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
        assert_eq!(start(&[("main.js", false), ("node_modules/semver/bin/semver.js", true)]), plain(""));
    }

    #[test]
    fn a_link_is_a_program_where_it_leads_to_one_and_an_application_is_started_by_its_interpreter() {
        let mut tree = Tree::default();
        let mut file = |path: &str, executable: bool| {
            tree.insert(path, Entry::file(DigestFunction::Sha256.digest(path.as_bytes()), executable)).unwrap();
        };
        file("packages/bin/gunicorn", true);
        file("packages/idna/__init__.py", false);
        tree.insert("bin/gunicorn", Entry::Symlink { target: "../packages/bin/gunicorn".into() }).unwrap();
        tree.insert("idna", Entry::Symlink { target: "packages/idna".into() }).unwrap();
        assert_eq!(of(&tree, "shop"), Start { program: "bin/gunicorn".into(), with: String::new() });
        tree.insert("main.py", Entry::file(DigestFunction::Sha256.digest(b"x"), false)).unwrap();
        assert_eq!(of(&tree, "shop"), Start { program: "main.py".into(), with: "python3".into() });
    }
}
