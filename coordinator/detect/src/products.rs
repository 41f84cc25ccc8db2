//! What a language's files make of their own: a program, a library for others, a site, an application.
//!
//! Manifests are often there for another language's tools. Invariant: a file that a linter, a formatter, an editor or a
//! documentation generator could need alone is no product.

use kiln_plan::Source;

use super::{Language, deno, evidence, hugo, java, node, php, python, ruby, rust, tree};

/// Directories with programs for development and examples, as `shell/go.sh` leaves them out.
const ASIDE: [&str; 15] = [
    "example", "examples", "sample", "samples", "demo", "demos", "hack", "script", "scripts", "tool", "tools", "test",
    "tests", "e2e", "internal",
];

/// What the files of a language make.
///
/// # Errors
/// Why they make nothing, for people.
pub(super) fn of(source: &dyn Source, language: Language) -> Result<String, &'static str> {
    let procfile = tree::text(source, "Procfile").unwrap_or_default();
    if let Some(command) = evidence::started_by(&procfile, language) {
        return Ok(format!("`Procfile` starts `{command}`"));
    }
    let started = |file: &str| format!("`{file}` is an application's");
    match language {
        Language::Rust => rust::product(source).ok_or("it has no program and no library for other languages"),
        Language::Go => go(source).ok_or("it has no program"),
        Language::Java => tree::first_of(source, &java::BUILD_FILES)
            .map(|file| format!("`{file}` builds a program or a library"))
            .ok_or("it has no build file"),
        Language::Node => node::product(source).ok_or("it has nothing to start, to export or to serve"),
        Language::Deno => deno::product(source).ok_or("it has no program and no task that builds or starts one"),
        Language::Python => python::product(source).ok_or("it is neither a package nor an application"),
        Language::Ruby => ruby::application(source).map(started).ok_or("it is not an application"),
        Language::Php => php::application(source).map(started).ok_or("it is not an application"),
        Language::Zig => zig(source).ok_or("there are no sources in Zig"),
        Language::Hugo => hugo::configuration(source)
            .filter(|(_, own)| *own)
            .map(|(file, _)| format!("`{file}` configures a site of Hugo"))
            .ok_or("the configuration may be another tool's"),
        Language::C => c(source).ok_or("it installs no program"),
    }
}

/// Go's sources that are compiled, with their texts.
pub(super) fn go_sources(source: &dyn Source) -> impl Iterator<Item = (&str, String)> {
    let foreign = |path: &str| path.split('/').any(|part| matches!(part, "vendor" | "testdata" | "node_modules"));
    let sources = source.paths().iter().map(String::as_str);
    let sources = sources.filter(move |path| path.ends_with(".go") && !path.ends_with("_test.go") && !foreign(path));
    sources.filter_map(|path| Some((path, tree::text(source, path)?)))
}

fn go(source: &dyn Source) -> Option<String> {
    let is_aside = |path: &str| tree::parent(path).split('/').any(|part| ASIDE.contains(&part));
    let ignored = |line: &str| line.starts_with("//go:build ") && (line.contains("ignore") || line.contains("tools"));
    let is_program =
        |text: &str| text.lines().any(|line| line.trim_end() == "package main") && !text.lines().any(ignored);
    let program = go_sources(source).find(|(path, text)| !is_aside(path) && is_program(text));
    program.map(|(path, _)| format!("`{path}` is a program's"))
}

fn zig(source: &dyn Source) -> Option<String> {
    let own = source.paths().iter().any(|path| path.ends_with(".zig") && path.contains('/'));
    (own && tree::has(source, "build.zig")).then(|| "`build.zig` builds a project in Zig".to_owned())
}

/// A build file often only compiles an extension of another language; a program that is installed is a product.
fn c(source: &dyn Source) -> Option<String> {
    let compact = |path: &str| -> Option<String> {
        let text = tree::text(source, path)?.to_ascii_lowercase();
        Some(text.chars().filter(|c| !c.is_whitespace()).collect())
    };
    let cmake = compact("CMakeLists.txt").is_some_and(|t| t.contains("add_executable(") && t.contains("install("));
    let meson = compact("meson.build").is_some_and(|t| t.contains("executable(") && t.contains("install:true"));
    let file = if cmake { "CMakeLists.txt" } else { "meson.build" };
    (cmake || meson).then(|| format!("`{file}` installs a program"))
}
