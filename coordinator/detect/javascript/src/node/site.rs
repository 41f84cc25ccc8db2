//! Sites: projects whose build produces files for a web server and nothing to run.
//!
//! Recognised by the command of their build script. Invariant: a package that has a server, a command or an entry point
//! for other packages is not a site, whatever builds its pages.

use std::collections::BTreeSet;

use super::{super::tree, manifest::Package};
use kiln_plan::{Source, View};

/// A site.
pub(super) struct Site {
    /// The tool that builds it.
    pub(super) tool: &'static str,
    /// Its possible output directories, most likely first.
    pub(super) directories: Vec<String>,
    /// The directory with its pages' sources, in the package; empty for the package's own.
    pub(super) root: String,
    /// Whether its files are in some subdirectory of that directory.
    pub(super) nested: bool,
    /// What identified it as a site.
    pub(super) because: String,
}

/// A generator: the words of its command, and its output directory.
const GENERATORS: [(&str, &str, &str); 14] = [
    ("vite", "build", "dist"),
    ("react-scripts", "build", "build"),
    ("craco", "build", "build"),
    ("react-app-rewired", "build", "build"),
    ("vue-cli-service", "build", "dist"),
    ("ng", "build", "dist"),
    ("parcel", "build", "dist"),
    ("astro", "build", "dist"),
    ("gatsby", "build", "public"),
    ("docusaurus", "build", "build"),
    ("next", "export", "out"),
    ("next", "build", "out"),
    ("vitepress", "build", ".vitepress/dist"),
    ("eleventy", "", "_site"),
];

/// Packages that serve requests, including frameworks whose build produces a server.
const SERVERS: [&str; 24] = [
    "express",
    "fastify",
    "koa",
    "hapi",
    "@hapi/hapi",
    "@nestjs/core",
    "@hono/node-server",
    "restify",
    "polka",
    "sirv",
    "connect",
    "socket.io",
    "apollo-server",
    "@apollo/server",
    "@remix-run/node",
    "@remix-run/serve",
    "@react-router/node",
    "@react-router/serve",
    "@sveltejs/adapter-node",
    "@astrojs/node",
    "@angular/ssr",
    "@solidjs/start",
    "nuxt",
    "electron",
];

/// Commands in a `start` script that run a program.
pub(super) const RUNNERS: [&str; 10] =
    ["node", "nodemon", "tsx", "ts-node", "pm2", "pm2-runtime", "nest", "remix-serve", "electron", "bun"];

/// The site that a package is, if it is one.
pub(super) fn of(source: &dyn Source, package: &Package) -> Option<Site> {
    match package.directory.as_str() {
        "" => within(source, package),
        directory => within(&View::new(source, directory), package),
    }
}

/// The same, for a package whose directory is the root of `source`.
fn within(source: &dyn Source, root: &Package) -> Option<Site> {
    let texts = build_texts(root);
    let words: Vec<&str> = texts.iter().flat_map(|text| text.split_whitespace()).collect();
    let (tool, command, directory) = GENERATORS.into_iter().find(|(tool, command, _)| {
        let mut at = words.iter().enumerate().filter(|(_, word)| tree::base(word) == *tool);
        at.any(|(at, _)| command.is_empty() || words.iter().skip(at).skip(1).take(4).any(|word| word == command))
    })?;
    if words.iter().any(|word| word.starts_with("--ssr")) || serves(root) || offers(source, root) {
        return None;
    }
    let configuration = configuration(source, tool);
    let settings = configuration.as_deref().unwrap_or_default();
    let says = |key: &str, values: &[&str]| value(settings, key).is_some_and(|found| values.contains(&found));
    match (tool, command) {
        ("next", "build") if !says("output", &["export"]) => return None,
        ("astro", _) if says("output", &["server", "hybrid"]) || settings.contains("adapter:") => return None,
        ("vite", _) if depends(root, "@sveltejs/kit") && !depends(root, "@sveltejs/adapter-static") => return None,
        // A library.
        ("vite", _) if settings.split("lib:").nth(1).is_some_and(|rest| rest.trim_start().starts_with('{')) => {
            return None;
        }
        _ => {}
    }
    let after = words.iter().skip_while(|word| **word != command).nth(1).copied();
    let argument_root = after.filter(|word| tree::has_directory(source, word.trim_end_matches('/')));
    let own_root = argument_root.or_else(|| value(settings, "root")).filter(|_| tool == "vite");
    let own_root = own_root.and_then(|path| tree::join("", path)).unwrap_or_default();
    let mut directories: Vec<String> = Vec::new();
    let argument = words.iter().zip(words.iter().skip(1)).find_map(|(word, next)| match *word {
        "--outDir" | "--dist-dir" | "--output-path" | "--dest" => Some(*next),
        word => word.strip_prefix("--outDir=").or_else(|| word.strip_prefix("--output=")),
    });
    let configured = value(settings, if tool == "next" { "distDir" } else { "outDir" });
    for path in argument.into_iter().chain(configured) {
        directories.extend(tree::join(&own_root, path.trim_matches(['"', '\''])).filter(|path| !path.is_empty()));
    }
    if tool == "vitepress" {
        directories.extend(argument_root.and_then(|below| tree::join(below, directory)));
    }
    if tool == "vite" && depends(root, "@sveltejs/adapter-static") {
        directories.push("build".to_owned());
    }
    directories.extend(tree::join(&own_root, directory));
    directories.extend(["dist", "build", "out", "public"].map(str::to_owned));
    let mut seen = BTreeSet::new();
    directories.retain(|path| seen.insert(path.clone()));
    // Most of them use `public` for files to be copied, so it is not searched.
    directories.retain(|path| path != "public" || directory == "public");
    let directories: Vec<String> = directories.iter().filter_map(|path| tree::join(&root.directory, path)).collect();
    let shown = format!("{tool} {command}").trim_end().to_owned();
    let because = format!("its build is `{shown}`, so the artifact is the site in `{}`", directories.first()?);
    Some(Site { tool, root: own_root, nested: tool == "ng", directories, because })
}

/// The build script and the scripts that it calls.
pub(super) fn build_texts(root: &Package) -> Vec<String> {
    let mut left: Vec<String> = ["prebuild", "build", "postbuild"].map(str::to_owned).to_vec();
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut texts = Vec::new();
    let scripts = root.content.get("scripts").and_then(serde_json::Value::as_object);
    while let Some(name) = left.pop() {
        let Some(text) = root.script(&name).filter(|_| done.insert(name.clone())) else { continue };
        let runs = ["npm", "pnpm", "yarn", "run-s", "run-p", "npm-run-all"];
        let words: Vec<&str> = text.split([' ', '\t', '"', '\'']).collect();
        if words.iter().any(|word| runs.contains(word)) {
            let known = scripts.into_iter().flatten().map(|(name, _)| name.as_str());
            left.extend(known.filter(|name| words.contains(name)).map(str::to_owned));
        }
        texts.push(text.to_owned());
    }
    texts
}

fn depends(root: &Package, name: &str) -> bool {
    root.dependencies().any(|(_, dependency, _)| dependency == name)
}

/// Whether there is a server: a package for one, or a script that starts one.
fn serves(root: &Package) -> bool {
    let server = root.dependencies().any(|(kind, name, _)| kind == "dependencies" && SERVERS.contains(&name));
    let starts = ["start", "serve", "start:prod", "prod"].into_iter().filter_map(|name| root.script(name));
    server || starts.flat_map(str::split_whitespace).any(|word| RUNNERS.contains(&tree::base(word)))
}

/// Whether it has commands or entry points for others.
fn offers(source: &dyn Source, root: &Package) -> bool {
    let has = |key: &str| root.content.get(key).is_some();
    let main = root.content.get("main").and_then(serde_json::Value::as_str);
    let main = main.and_then(|path| tree::join("", path)).is_some_and(|path| tree::has(source, &path));
    has("bin") || has("exports") || has("module") || main
}

/// The text of a tool's configuration.
fn configuration(source: &dyn Source, tool: &str) -> Option<String> {
    let ends = ["js", "ts", "mjs", "mts", "cjs", "cts"];
    ends.into_iter().find_map(|end| tree::text(source, &format!("{tool}.config.{end}")))
}

/// The first string after a key in a JavaScript configuration; the last one on its line, to handle
/// `path.resolve(__dirname, "x")`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| {
        let (before, rest) = line.split_once(key)?;
        let before = before.chars().next_back();
        let rest = rest.trim_start_matches(['"', '\'']).trim_start();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '.').then_some(rest)?.strip_prefix(':')
    })?;
    let own = line.split(':').next().unwrap_or(line);
    own.split(['"', '\'', '`']).skip(1).step_by(2).last().filter(|value| !value.contains('$'))
}
