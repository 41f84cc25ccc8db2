//! Detects from a project's files how to build it: one file or directory per language.
//!
//! Invariant: a dependency layer's inputs are manifests, lock files and the tools' own configuration, never sources;
//! only the steps that fetch dependencies have network access.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod below;
mod beside;
mod c;
mod evidence;
mod git;
mod go;
mod hugo;
mod java;
mod owned;
mod php;
mod pins;
mod products;
mod python;
mod ruby;
mod rust;
mod several;
mod shell;
mod submodules;
mod tests_of;
mod unread;
mod unsupported;
mod zig;

pub use go::{CACHES as GO_CACHES, asks_for_its_cache as go_asks_for_its_cache};
pub use kiln_detected::{Detected, Error, Identity, Language, UnknownLanguage, artifact_name, tree};
use kiln_detected::{found, staging};

pub use deno::is_member as is_deno_member;
pub use java::{gradle_project, maven_modules};
use kiln_detect_javascript::{deno, node};
use kiln_plan::Source;
pub use node::is_member as is_node_member;
pub use node::package_paths as node_manifests;
pub use owned::owned;
pub use ruby::lock;
pub use unread::about;

/// Files that Kiln itself adds to steps, with the placeholder for their content in a `kiln.toml`.
const BUILTIN: [(&str, &str); 2] = [("kiln:Gather.java", java::GATHER.1), ("kiln:member.js", node::MEMBER.1)];

/// The content that a placeholder in a `kiln.toml` stands for.
pub fn builtin(text: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(name, _)| *name == text).map(|(_, content)| *content)
}

/// The placeholder for a content in a `kiln.toml`.
pub fn builtin_name(content: &str) -> Option<&'static str> {
    BUILTIN.iter().find(|(_, known)| *known == content).map(|(name, _)| *name)
}

/// How to build the tree: the language with the strongest evidence first, then those that make something of their own beside it; and which
/// others were considered. `directory_name` is the project's name if nothing else provides one; `language` is the user's choice, if any.
///
/// # Errors
/// What is wrong with the project in one of the languages that are built. Problems in other languages are ignored.
pub fn detect(
    source: &dyn Source,
    directory_name: &str,
    language: Option<Language>,
) -> Result<(Vec<Detected>, Vec<String>), Error> {
    if let Some(language) = language {
        let found = in_language(language, source, directory_name)?;
        let found = found.ok_or(Error::NotInLanguage { language, expected: manifests(language) })?;
        return Ok((vec![found], Vec::new()));
    }
    let mut weighed = evidence::weigh(source);
    while let Some(first) = weighed.first().map(|evidence| evidence.language) {
        let Some(found) = in_language(first, source, directory_name)? else {
            weighed.remove(0);
            continue;
        };
        let (chosen, mut considered) = beside::choose(source, weighed);
        let mut first_found = Some(found);
        let mut all = Vec::new();
        for (language, made) in chosen {
            let found = match first_found.take() {
                Some(found) => Some(found),
                None => in_language(language, source, directory_name).map_err(|error| Error::Beside {
                    language,
                    first,
                    source: Box::new(error),
                })?,
            };
            let Some(mut found) = found else { continue };
            found.because.extend(made);
            all.push(found);
        }
        several::set_apart(&mut all);
        considered.extend(
            unsupported::find(source).map(|(file, what, _)| format!("{what} (`{file}`), which needs a `kiln.toml`")),
        );
        return Ok((all, considered));
    }
    Err(nothing(source))
}

/// The languages that a tree's files suggest, heaviest first.
pub fn weighed(source: &dyn Source) -> Vec<Language> {
    evidence::weigh(source).into_iter().map(|evidence| evidence.language).collect()
}

fn in_language(language: Language, source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    let mut found = by_detector(language, source, directory_name)?;
    if let Some(found) = &mut found {
        tests_of::append(source, found);
        pins::apply(source, &mut found.steps);
    }
    Ok(found)
}

fn by_detector(language: Language, source: &dyn Source, directory_name: &str) -> Result<Option<Detected>, Error> {
    match language {
        Language::Rust => rust::detect(source, directory_name),
        Language::Go => go::detect(source, directory_name),
        Language::Java => match java::detect(source, directory_name)? {
            None => java::detect_plain(source, directory_name),
            found => Ok(found),
        },
        Language::Node => node::detect(source, directory_name),
        Language::Deno => deno::detect(source, directory_name),
        Language::Python => python::detect(source, directory_name),
        Language::Ruby => ruby::detect(source, directory_name),
        Language::Php => php::detect(source, directory_name),
        Language::Zig => zig::detect(source, directory_name),
        Language::Hugo => hugo::detect(source, directory_name),
        Language::C => c::detect(source, directory_name),
    }
}

/// The files that a project in a language has.
fn manifests(language: Language) -> &'static str {
    match language {
        Language::Rust => "`Cargo.toml`",
        Language::Go => "`go.mod` or `go.work`",
        Language::Java => "`pom.xml`, `build.gradle` or Java sources",
        Language::Node => "`package.json`",
        Language::Deno => "`deno.json` or `deno.jsonc`",
        Language::Python => "`pyproject.toml` with a project, `setup.py`, `Pipfile` or `requirements.txt`",
        Language::Ruby => "`Gemfile`",
        Language::Php => "`composer.json`",
        Language::Zig => "`build.zig`",
        Language::Hugo => "`hugo.toml`, or `config.toml` beside `content`",
        Language::C => "`CMakeLists.txt`, `meson.build`, `configure` or `Makefile`",
    }
}

/// Why no language was found.
fn nothing(source: &dyn Source) -> Error {
    if let Some((file, what, fix)) = unsupported::find(source) {
        return Error::Unsupported { file, what, fix };
    }
    let below = below::projects(source);
    if !below.is_empty() {
        return Error::Below { projects: below::words(&below) };
    }
    const SHOWN: usize = 5;
    let paths = source.paths();
    let more = paths.len().saturating_sub(SHOWN);
    let found = kiln_plan::list(paths.iter().take(SHOWN).map(String::as_str));
    let found = if more > 0 { format!("{found} and {more} more") } else { found };
    Error::Unknown { found }
}

/// The project's name and version according to its manifest.
pub fn identity(source: &dyn Source) -> Identity {
    let of = |language: Language| match language {
        Language::Rust => rust::identity(source),
        Language::Go => go::identity(source),
        Language::Java => java::identity(source),
        Language::Node => node::identity(source),
        Language::Deno => deno::identity(source),
        Language::Python => python::identity(source),
        Language::Ruby => ruby::identity(source),
        Language::Php => php::identity(source),
        Language::Zig => zig::identity(source),
        Language::Hugo => hugo::identity(source),
        Language::C => c::identity(source),
    };
    let weighed = evidence::weigh(source).into_iter().map(|evidence| of(evidence.language));
    weighed.into_iter().find(|identity| identity.name.is_some() || identity.version.is_some()).unwrap_or_default()
}
