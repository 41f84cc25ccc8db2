//! What the root's build file calls the project.

use super::super::{Identity, tree};
use crate::plan::Source;

/// The name and version that the root's build file says.
pub(in super::super) fn identity(source: &dyn Source) -> Identity {
    let call = |path: &str| {
        let text = tree::text(source, path)?;
        let start = text.find("project(").or_else(|| text.find("project ("))?;
        let rest = &text[text[start..].find('(')? + start + 1..];
        Some(rest.split(')').next()?.to_owned())
    };
    if let Some(arguments) = call("CMakeLists.txt") {
        let words: Vec<&str> = arguments.split_whitespace().map(|w| w.trim_matches('"')).collect();
        let version = words.iter().position(|w| *w == "VERSION").and_then(|i| words.get(i + 1));
        return Identity { name: plain(words.first()), version: plain(version) };
    }
    let Some(arguments) = call("meson.build") else { return Identity::default() };
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    let version = arguments.find("version").and_then(|at| {
        let rest = arguments[at..].strip_prefix("version")?.trim_start().strip_prefix(':')?;
        quoted(rest.split(',').next()?)
    });
    Identity { name: quoted(&arguments), version }
}

/// A word in which no variable of the build file stands.
fn plain(word: Option<&&str>) -> Option<String> {
    word.filter(|w| !w.contains('$')).map(|w| (*w).to_owned())
}
