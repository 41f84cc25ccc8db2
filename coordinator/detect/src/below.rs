//! Finds projects in subdirectories of a tree whose root is not a project.

use std::collections::BTreeMap;

use super::{Language, tree};
use kiln_plan::Source;

/// Maximum number of projects listed.
const SHOWN: usize = 8;

/// Directories with a manifest, none of them below another, with the manifest's language.
pub(super) fn projects(source: &dyn Source) -> BTreeMap<String, Language> {
    let mut found: BTreeMap<String, Language> = BTreeMap::new();
    for path in tree::named(source, |name| language(name).is_some()) {
        let directory = tree::parent(&path);
        let hidden = directory.split('/').any(|part| part.starts_with('.') || part == "vendor" || part == "testdata");
        if directory.is_empty() || hidden {
            continue;
        }
        let Some(language) = language(tree::base(&path)) else { continue };
        // A manifest takes precedence over a makefile next to it.
        let known = found.entry(directory.to_owned()).or_insert(language);
        *known = language.min(*known);
    }
    let all: Vec<String> = found.keys().cloned().collect();
    found.retain(|directory, _| {
        !all.iter().any(|other| directory.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/')))
    });
    found
}

/// The projects, each with the command that builds it.
pub(super) fn words(projects: &BTreeMap<String, Language>) -> String {
    let mut words: Vec<String> = projects
        .iter()
        .take(SHOWN)
        .map(|(directory, language)| format!("`kiln build {}` ({language})", tree::shell_word(directory)))
        .collect();
    if projects.len() > SHOWN {
        words.push(format!("and {} more", projects.len().saturating_sub(SHOWN)));
    }
    words.join(", ")
}

fn language(name: &str) -> Option<Language> {
    Some(match name {
        "Cargo.toml" => Language::Rust,
        "go.mod" | "go.work" => Language::Go,
        "pom.xml" | "build.gradle" | "build.gradle.kts" => Language::Java,
        "package.json" => Language::Node,
        "deno.json" | "deno.jsonc" => Language::Deno,
        "pyproject.toml" | "setup.py" | "requirements.txt" | "Pipfile" => Language::Python,
        "Gemfile" => Language::Ruby,
        "composer.json" => Language::Php,
        "build.zig" => Language::Zig,
        "hugo.toml" | "hugo.yaml" => Language::Hugo,
        "CMakeLists.txt" | "meson.build" | "configure" | "Makefile" => Language::C,
        _ => return None,
    })
}
