//! Depfiles: rules for make that compilers write.
//!
//! Sources: `make_dep_rule` of GCC's libcpp for how names are escaped; `write_out_deps` of `rustc_interface` for `# env-dep:`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Files that depend on others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// What is made.
    pub targets: Vec<PathBuf>,
    /// What it is made of, as written.
    pub prerequisites: Vec<PathBuf>,
}

/// The rules of a depfile. Lines that are no rules are skipped.
pub fn rules(depfile: &[u8]) -> Vec<Rule> {
    logical_lines(depfile).filter_map(|line| rule(&line)).collect()
}

/// What rustc's `dep-info` says that a crate depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DepInfo {
    /// Files that were read, as written: absolute, or relative to the working directory.
    pub sources: BTreeSet<PathBuf>,
    /// Environment variables that `env!` and `option_env!` read, with their values; `None` for one that was not set.
    pub environment: BTreeMap<OsString, Option<OsString>>,
}

/// Reads a `dep-info` file of rustc.
pub fn dep_info(depfile: &[u8]) -> DepInfo {
    let mut found = DepInfo::default();
    for rule in rules(depfile) {
        found.sources.extend(rule.prerequisites);
    }
    for line in depfile.split(|c| *c == b'\n') {
        let Some(variable) = line.strip_prefix(b"# env-dep:") else { continue };
        let mut parts = variable.splitn(2, |c| *c == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next());
        found.environment.insert(unescaped(name), value.map(unescaped));
    }
    found
}

/// rustc writes `\\`, `\n` and `\r` in names and values of variables.
fn unescaped(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        plain.extend(match byte {
            b'\\' => bytes.next().map(|escaped| match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                other => other,
            }),
            other => Some(other),
        });
    }
    OsString::from_vec(plain)
}

/// Lines with their continuations; comments are left out.
fn logical_lines(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut lines = text.split(|c| *c == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    std::iter::from_fn(move || {
        let mut whole = Vec::new();
        let mut line = lines.next()?;
        while let Some(begun) = line.strip_suffix(b"\\") {
            whole.extend_from_slice(begun);
            whole.push(b' ');
            line = lines.next().unwrap_or_default();
        }
        whole.extend_from_slice(line);
        Some(whole)
    })
    .filter(|line| !line.starts_with(b"#"))
}

fn rule(line: &[u8]) -> Option<Rule> {
    let mut rule = Rule::default();
    let mut after_colon = false;
    for (name, ends_targets) in names(line) {
        if !name.is_empty() {
            let list = if after_colon { &mut rule.prerequisites } else { &mut rule.targets };
            list.push(PathBuf::from(OsString::from_vec(name)));
        }
        after_colon |= ends_targets;
    }
    after_colon.then_some(rule)
}

/// The names of a line, each with whether the colon follows that ends the targets.
fn names(line: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let mut names = Vec::new();
    let mut name = Vec::new();
    let mut rest = line;
    let (mut run, mut has_colon) = (Backslashes { left: line.len(), is_before_blank: false }, false);
    while let [byte, after @ ..] = rest {
        let escapes_blank = run.escapes_blank(rest);
        rest = match (byte, after) {
            (b'\\', [escaped @ (b' ' | b'\t' | b'#' | b':'), after @ ..]) => {
                name.push(*escaped);
                after
            }
            // Backslashes are doubled only before a blank that is escaped.
            (b'\\', [b'\\', both @ ..]) if escapes_blank => {
                name.push(b'\\');
                both
            }
            (b'$', [b'$', both @ ..]) => {
                name.push(b'$');
                both
            }
            (b' ' | b'\t', _) => {
                names.push((std::mem::take(&mut name), false));
                after
            }
            // Of several, the first ends the targets; a name may have a colon elsewhere.
            (b':', [] | [b' ' | b'\t', ..]) if !has_colon => {
                has_colon = true;
                names.push((std::mem::take(&mut name), true));
                after
            }
            _ => {
                name.push(*byte);
                after
            }
        };
    }
    names.push((name, false));
    names
}

/// The run of backslashes that a name is read in: however long it is, each of its bytes is looked at once.
struct Backslashes {
    /// What is left of the line where the run ends.
    left: usize,
    /// Whether a blank follows.
    is_before_blank: bool,
}

impl Backslashes {
    /// Whether the run at the beginning of the text ends in a blank that the last backslash escapes.
    fn escapes_blank(&mut self, text: &[u8]) -> bool {
        if text.len() <= self.left {
            let run = text.iter().take_while(|c| **c == b'\\').count();
            self.left = text.len().saturating_sub(run);
            self.is_before_blank = matches!(text.get(run), Some(b' ' | b'\t' | b'#'));
        }
        self.is_before_blank && text.len().saturating_sub(self.left) % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Vec<String>, Vec<String>)> {
        let shown = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect();
        rules(text.as_bytes()).into_iter().map(|rule| (shown(rule.targets), shown(rule.prerequisites))).collect()
    }

    fn rule_of(target: &str, prerequisites: &[&str]) -> (Vec<String>, Vec<String>) {
        (vec![target.to_owned()], prerequisites.iter().map(|&path| path.to_owned()).collect())
    }

    #[test]
    fn rules_go_on_after_a_backslash() {
        let text = "a.o: a.c \\\n  inc/b.h \\\n inc/c.h\n\ninc/b.h:\n";
        assert_eq!(read(text), [rule_of("a.o", &["a.c", "inc/b.h", "inc/c.h"]), rule_of("inc/b.h", &[])]);
    }

    #[test]
    fn names_are_read_as_they_were_escaped() {
        assert_eq!(
            read(r"a.o: b\ c.h d$$e.h f\#g.h h\i.h j\\\ k.h x:y.h"),
            [rule_of("a.o", &["b c.h", "d$e.h", "f#g.h", r"h\i.h", r"j\ k.h", "x:y.h"])]
        );
    }

    #[test]
    fn long_runs_are_read_in_one_go() {
        let (odd, even) = ("\\".repeat(2_000_001), "\\".repeat(2_000_000));
        let text = format!("a.o: b{odd} c d{even}x\nx: {}\n", "y:y ".repeat(100_000));
        let read = read(&text);
        assert_eq!(read[0].1, [format!("b{} c", "\\".repeat(1_000_000)), format!("d{even}x")]);
        assert_eq!(read[1].1.len(), 100_000);
    }

    #[test]
    fn dep_info_has_sources_and_variables() {
        let text = "/t/b-1.d: src/b.rs /o/gen\\ x.rs\n\n/t/b-1: src/b.rs /o/gen\\ x.rs\n\nsrc/b.rs:\n\n# env-dep:A=x=\\\\y\\nz\n# env-dep:B\n# env-dep:C=\n";
        let found = dep_info(text.as_bytes());
        assert_eq!(found.sources, ["/o/gen x.rs", "src/b.rs"].map(PathBuf::from).into());
        let variables = [("A", Some("x=\\y\nz")), ("B", None), ("C", Some(""))];
        assert_eq!(found.environment, variables.map(|(name, value)| (name.into(), value.map(OsString::from))).into());
    }
}
