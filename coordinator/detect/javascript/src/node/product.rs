//! What a project of Node makes of its own. Invariant: a `package.json` that only lists tools, or builds assets of an application in
//! another language, makes nothing.

use serde_json::Value;

use super::{
    super::tree,
    locks::Tool,
    manifest::{self, Package},
    site,
};
use kiln_plan::{Source, View};

/// Commands of frameworks that start a server, in addition to [`site::RUNNERS`].
const SERVERS: [&str; 5] = ["astro", "fastify", "next", "nuxt", "react-router-serve"];
/// Commands in a `start` script that start what another language makes.
const FOREIGN: [&str; 18] = [
    "bundle",
    "cargo",
    "composer",
    "docker",
    "docker-compose",
    "flask",
    "go",
    "gradle",
    "gunicorn",
    "hugo",
    "make",
    "mvn",
    "php",
    "python",
    "python3",
    "rails",
    "uvicorn",
    "zig",
];
/// Directories that a build writes an entry point to.
const BUILT: [&str; 4] = ["build/", "dist/", "lib/", "out/"];

/// What the packages of the tree make: a program, a command, a library or a site; the first that is found. A manifest that cannot be
/// read counts, so that its error is reported.
pub fn product(source: &dyn Source) -> Option<String> {
    let root = match tree::json(source, "package.json") {
        Ok(root) => root?,
        Err(_) => return Some("`package.json` is there".to_owned()),
    };
    match manifest::packages(source, &root, Tool::of(source, &root)) {
        Ok(packages) => packages.iter().find_map(|package| of_package(source, package)),
        Err(_) => Some("`package.json` is a package".to_owned()),
    }
}

/// The scripts that a build runs, one a line.
pub fn build_scripts(source: &dyn Source) -> String {
    let Ok(Some(content)) = tree::json(source, "package.json") else { return String::new() };
    let manifest = "package.json".to_owned();
    let root = Package { directory: String::new(), manifest, content, installed: true };
    let installed =
        ["preinstall", "install", "postinstall", "prepare"].into_iter().filter_map(|name| root.script(name));
    let installed: Vec<String> = installed.map(str::to_owned).collect();
    [site::build_texts(&root), installed].concat().join("\n")
}

fn of_package(source: &dyn Source, package: &Package) -> Option<String> {
    if let Some(start) = package.script("start").filter(|start| starts(start)) {
        return Some(format!("its `start` is `{start}`"));
    }
    let filled = |key: &str| match package.content.get(key) {
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    };
    if filled("bin") {
        return Some("it has a command".to_owned());
    }
    if filled("exports") || filled("module") || main(source, package) {
        return Some("others import what it exports".to_owned());
    }
    let site = site::of(source, package)?;
    is_page(source, package, &site).then_some(site.because)
}

/// Whether a script starts a program of Node.
fn starts(script: &str) -> bool {
    let words: Vec<&str> = script.split([' ', '\t', '"', '\'']).map(tree::base).collect();
    let any = |known: &[&str]| words.iter().any(|word| known.contains(word));
    (any(&site::RUNNERS) || any(&SERVERS)) && !any(&FOREIGN)
}

/// Whether there is an entry point, or the build writes one. `npm init` writes a `main` even if there is no such file.
fn main(source: &dyn Source, package: &Package) -> bool {
    let main = package.content.get("main").and_then(Value::as_str).map(|main| main.trim_start_matches("./"));
    let Some(main) = main else { return false };
    let exists = tree::join(&package.directory, main).is_some_and(|path| tree::has(source, &path));
    exists || package.script("build").is_some() && BUILT.iter().any(|directory| main.starts_with(directory))
}

/// Whether the build makes pages. Vite and Parcel also bundle the assets of servers in other languages, which have the pages.
fn is_page(source: &dyn Source, package: &Package, site: &site::Site) -> bool {
    let pages = |source: &dyn Source| match site.tool {
        "vite" => ["index.html", "src/app.html"].into_iter().any(|file| {
            tree::join(&site.root, file).is_some_and(|path| tree::has(source, &path)) || tree::has(source, file)
        }),
        "parcel" => {
            package.script("build").is_some_and(|build| build.contains(".html"))
                || package.content.get("source").is_some_and(|source| source.to_string().contains(".html"))
        }
        _ => true,
    };
    match package.directory.as_str() {
        "" => pages(source),
        directory => pages(&View::new(source, directory)),
    }
}
