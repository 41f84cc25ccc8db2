//! The project's name and version in the root's build file.

use std::collections::BTreeMap;

use super::super::{Identity, tree};
use kiln_plan::Source;

/// The name and version in the root's build file.
pub(in super::super) fn identity(source: &dyn Source) -> Identity {
    let call = |path: &str, name: &str| {
        let text = tree::text(source, path)?;
        let around = text.match_indices(name).map(|(at, _)| text.split_at(at));
        let words = around.filter(|(before, _)| !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        let mut arguments = words.filter_map(|(_, from)| from.strip_prefix(name)?.trim_start().strip_prefix('('));
        Some(arguments.next()?.split(')').next()?.to_owned())
    };
    if let Some(arguments) = call("CMakeLists.txt", "project").or_else(|| call("CMakeLists.txt", "PROJECT")) {
        let variables = cmake_variables(&tree::text(source, "CMakeLists.txt").unwrap_or_default());
        let words: Vec<&str> = arguments.split_whitespace().map(|w| w.trim_matches('"')).collect();
        let name = words.first().and_then(|name| resolved(name, &variables));
        let stated = words.iter().position(|w| *w == "VERSION").and_then(|at| words.get(at.saturating_add(1)));
        let version = match stated {
            Some(version) => resolved(version, &variables),
            // Otherwise, the variables that projects commonly use for it.
            None => {
                let names: Vec<String> = name.iter().flat_map(|name| [name.clone(), name.to_uppercase()]).collect();
                let set = names.iter().map(String::as_str).chain(["PROJECT"]).find_map(|name| {
                    variables.get(&format!("{name}_VERSION")).filter(|value| is_version(value)).cloned()
                });
                set.or_else(|| version_in_read_files(source))
            }
        };
        return Identity { name, version: version.filter(|version| is_version(version)) };
    }
    if let Some(arguments) = call("configure.ac", "AC_INIT").filter(|_| !tree::has(source, "meson.build")) {
        let mut words = arguments.split(',').map(|word| word.trim().trim_matches(['[', ']', '"']).trim().to_owned());
        let plain = |word: &String| !word.is_empty() && !word.contains(['$', '(', '[', ' ', '\n']);
        let name = words.next().filter(plain);
        return Identity { name, version: words.next().filter(plain).filter(|version| is_version(version)) };
    }
    let Some(arguments) = call("meson.build", "project") else { return Identity::default() };
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    let version = arguments.split_once("version").and_then(|(_, rest)| {
        let rest = rest.trim_start().strip_prefix(':')?;
        quoted(rest.split(',').next()?)
    });
    Identity { name: quoted(&arguments), version }
}

/// The variables that a `CMakeLists.txt` sets to values that are known without running it.
fn cmake_variables(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for call in text.split("set(").skip(1).chain(text.split("SET(").skip(1)) {
        let mut words = call.split(')').next().unwrap_or_default().split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        if let Some(value) = resolved(value.trim_matches('"'), &variables) {
            variables.entry(name.to_owned()).or_insert(value);
        }
    }
    variables
}

/// The version in a header that the root's `CMakeLists.txt` reads for it: three macros, a string, or a number whose
/// digits the `CMakeLists.txt` splits.
fn version_in_read_files(source: &dyn Source) -> Option<String> {
    let text = tree::text(source, "CMakeLists.txt")?;
    let reads = ["file(READ ", "file(STRINGS ", "file (READ ", "file (STRINGS "];
    let read = reads.iter().flat_map(|call| text.split(call).skip(1));
    let paths = read.filter_map(|rest| rest.split([' ', ')', '\n']).find(|word| !word.is_empty()));
    paths.filter_map(|path| tree::join("", path.trim_matches('"').rsplit("}/").next()?)).find_map(|path| {
        let header = tree::text(source, &path)?;
        let macros = macros(&header);
        let ending = |end: &str| macros.iter().find(|(name, _)| name.ends_with(end)).map(|(_, value)| *value);
        if let (Some(major), Some(minor)) = (ending("VERSION_MAJOR"), ending("VERSION_MINOR")) {
            let patch = ending("VERSION_PATCH").or_else(|| ending("VERSION_MICRO")).map(|patch| format!(".{patch}"));
            return Some(format!("{major}.{minor}{}", patch.unwrap_or_default())).filter(|version| is_version(version));
        }
        let stated = ending("VERSION").or_else(|| ending("VERSION_STRING"))?;
        let number = stated.parse::<u64>().ok().filter(|number| *number >= 100);
        match number {
            None => Some(stated.to_owned()).filter(|version| is_version(version) && version.contains('.')),
            Some(number) if text.contains("([0-9]+)([0-9][0-9])([0-9][0-9])") => {
                Some(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
            }
            Some(_) => None,
        }
    })
}

/// The macros of a header that expand to a single word.
fn macros(header: &str) -> Vec<(&str, &str)> {
    let defined =
        header.lines().filter_map(|line| line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("define "));
    defined
        .filter_map(|rest| {
            let (name, value) = rest.trim_start().split_once(char::is_whitespace)?;
            Some((name, value.split_whitespace().next()?.trim_matches('"')))
        })
        .collect()
}

/// A word with `${NAME}` replaced; `None` if a variable's value is unknown.
fn resolved(word: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}')?;
        out.push_str(before);
        out.push_str(variables.get(name)?);
        rest = after;
    }
    out.push_str(rest);
    (!out.contains('$')).then_some(out)
}

fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(char::is_whitespace)
}
