//! Requirements files: which one is used, what it includes, and which files of the tree it refers to.
//!
//! Invariant: hashes are required exactly if every requirement has one, because pip accepts nothing else.

use std::collections::BTreeMap;

use super::{super::tree, local};
use kiln_plan::Source;

/// The contents of a requirements file.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    /// The file and those it includes.
    pub(super) files: Vec<String>,
    /// Other files and directories of the tree that pip reads: wheels, source archives, `--find-links`.
    pub(super) archives: Vec<String>,
    /// Files that refer to packages of the tree, rewritten without these references.
    pub(super) rewritten: BTreeMap<String, String>,
    /// Directories of the tree to install, with their extras.
    pub(super) directories: Vec<(String, Vec<String>)>,
    /// Names of the packages.
    pub(super) names: Vec<String>,
    /// `name==version`, for exact versions.
    pub(super) pins: Vec<String>,
    /// Whether every requirement has a hash.
    pub(super) hashed: bool,
    /// Whether a requirement is fetched with git.
    pub(super) git: bool,
    /// A warning about unpinned requirements.
    pub(super) note: Option<String>,
}

/// Usual paths of production's requirements.
const USUAL: [&str; 12] = [
    "requirements.txt",
    "requirements.lock",
    "requirements-prod.txt",
    "requirements-production.txt",
    "requirements/production.txt",
    "requirements/prod.txt",
    "requirements/requirements.txt",
    "requirements/base.txt",
    "requirements/main.txt",
    "requirements/common.txt",
    "requirements/default.txt",
    "requirements/app.txt",
];

/// The file with production's requirements.
pub(super) fn main_file(source: &dyn Source) -> Option<String> {
    let first = tree::first_of(source, &USUAL)?;
    // If a `requirements.txt` includes the development requirements, production has another file.
    let development = |path: &String| {
        let stem = tree::base(path).trim_end_matches(".txt");
        stem.split(['-', '_', '.'])
            .any(|word| ["dev", "develop", "development", "local", "test", "tests"].contains(&word))
    };
    let production = || tree::first_of(source, &USUAL[2..6]);
    let chosen = if read(source, first).files.iter().any(development) { production().unwrap_or(first) } else { first };
    Some(chosen.to_owned())
}

/// Reads a requirements file and those it includes.
pub(super) fn read(source: &dyn Source, file: &str) -> Requirements {
    let mut all = Requirements { files: vec![file.to_owned()], ..Requirements::default() };
    let (mut hashes, mut loose): (usize, Vec<String>) = (0, Vec::new());
    let mut constraints: Vec<String> = Vec::new();
    let mut places = 0..;
    while let Some(path) = places.next().and_then(|at| all.files.get(at).cloned()) {
        let text = text(source, &path);
        let (mut kept, mut changed) = (String::new(), false);
        for (raw, line) in logical_lines(&text) {
            match parse(source, &path, &line) {
                Line::Include { path: included, constraint } => {
                    if constraint {
                        constraints.push(included.clone());
                    }
                    if !all.files.contains(&included) {
                        all.files.push(included);
                    }
                }
                Line::Archives(found) => all.archives.push(found),
                Line::Directory(directory, extras) => {
                    all.directories.push((directory, extras));
                    changed = true;
                    continue;
                }
                Line::Editable(plain) => {
                    // pip cannot install editable requirements into a target directory.
                    all.git |= plain.contains("git+");
                    changed = true;
                    kept.push_str(&plain);
                    kept.push('\n');
                    continue;
                }
                Line::Requirement if constraints.contains(&path) => {}
                Line::Requirement => {
                    all.names.push(normalised(name(&line)));
                    all.git |= line.contains("git+");
                    hashes = hashes.saturating_add(usize::from(line.contains("--hash=")));
                    let stated = line.split(" --").next().unwrap_or(&line);
                    let (wanted, marker) = stated.split_once(';').unwrap_or((stated, ""));
                    match wanted.split_once("==") {
                        Some((_, version)) => {
                            let marker = if marker.is_empty() { String::new() } else { format!(" ;{marker}") };
                            all.pins.push(format!(
                                "{}=={}{marker}",
                                name(wanted),
                                version.trim_start_matches('=').trim()
                            ));
                        }
                        None if line.contains("--hash=") || line.contains('@') => {}
                        None if line.contains("://") => loose.push(line),
                        None => loose.push(name(&line).to_owned()),
                    }
                }
                Line::Other => {}
            }
            kept.push_str(&raw);
        }
        if changed {
            all.rewritten.insert(path, kept);
        }
    }
    // A constraint pins what other lines leave open.
    let pinned = constraints.iter().map(|path| text(source, path) + "\n").collect::<String>();
    let pinned: Vec<String> = logical_lines(&pinned)
        .filter(|(_, line)| line.split(';').next().is_some_and(|wanted| wanted.contains("==")))
        .map(|(_, line)| normalised(name(&line)))
        .collect();
    loose.retain(|name| !pinned.contains(&normalised(name)));
    all.hashed = !all.names.is_empty() && hashes == all.names.len();
    all.note = if !loose.is_empty() {
        let names = kiln_plan::list(loose.iter().take(5).map(String::as_str));
        Some(format!(
            "`{file}` does not pin {names}, so two builds of one commit could differ: pin with `==` and hashes"
        ))
    } else if !all.names.is_empty() && !all.hashed {
        Some(format!("`{file}` pins versions without hashes: what those versions need in turn may be unpinned"))
    } else {
        None
    };
    all
}

/// Reads a requirements file; PowerShell writes UTF-16, which pip accepts.
fn text(source: &dyn Source, path: &str) -> String {
    let bytes = source.read(path).unwrap_or_default();
    let wide = |rest: &[u8], of: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = rest.as_chunks().0.iter().map(|pair| of(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// The meaning of a line.
enum Line {
    /// Includes another file of the tree.
    Include { path: String, constraint: bool },
    /// Files of the tree that pip installs from.
    Archives(String),
    /// A directory of the tree, with extras.
    Directory(String, Vec<String>),
    /// An editable requirement from elsewhere, rewritten as an ordinary one.
    Editable(String),
    /// A package.
    Requirement,
    /// An option, or an empty line.
    Other,
}

fn parse(source: &dyn Source, file: &str, line: &str) -> Line {
    let option = |names: [&str; 2]| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name).map(|rest| (name.starts_with("--"), rest)));
        let (long, rest) = rest?;
        // `-rfile` means `-r file`, but `--requirementfile` is invalid.
        (!long || rest.starts_with([' ', '='])).then(|| rest.trim_start_matches([' ', '=']).trim())
    };
    let beside = |path: &str| tree::join(tree::parent(file), path);
    for (names, constraint) in [(["--requirement", "-r"], false), (["--constraint", "-c"], true)] {
        if let Some(path) = option(names) {
            let path = beside(path).filter(|path| tree::has(source, path));
            return path.map_or(Line::Other, |path| Line::Include { path, constraint });
        }
    }
    if let Some(path) = option(["--find-links", "-f"]) {
        let there = |path: &String| tree::has(source, path) || tree::has_directory(source, path);
        let path = path.trim_start_matches("file:");
        let found = beside(path).filter(there).or_else(|| tree::join("", path).filter(there));
        return found.map_or(Line::Other, Line::Archives);
    }
    let (text, editable) = match option(["--editable", "-e"]) {
        Some(rest) => (rest, true),
        None if line.starts_with('-') || line.is_empty() => return Line::Other,
        None => (line, false),
    };
    let place = text.split(" ;").next().unwrap_or(text).split(" --").next().unwrap_or(text).trim();
    let place = place.split_once('@').filter(|(_, url)| url.trim().starts_with("file:")).map_or(place, |(_, url)| url);
    let place = place.trim();
    let (bare, extras) = match place.split_once('[') {
        Some((bare, extras)) => (bare, extras.trim_end_matches(']')),
        None => (place, ""),
    };
    let bare = bare.strip_prefix("file:").unwrap_or(bare).split('#').next().unwrap_or(bare);
    // pip resolves paths relative to its working directory, the root.
    if let Some(path) = tree::join("", bare).filter(|_| !bare.contains("://")) {
        let explicit = editable || bare.contains('/') || bare.starts_with('.') || place.starts_with("file:");
        if explicit && local::is_there(source, &path) {
            let extras = extras.split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned).collect();
            return Line::Directory(path, extras);
        }
        let archive = [".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2"].iter().any(|ending| path.ends_with(ending));
        if archive && tree::has(source, &path) {
            return Line::Archives(path);
        }
    }
    if editable { Line::Editable(text.to_owned()) } else { Line::Requirement }
}

/// Logical lines, joined like pip does: as written, and without comments.
fn logical_lines(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let mut lines = text.split_inclusive('\n');
    std::iter::from_fn(move || {
        let mut raw = lines.next()?.to_owned();
        while raw.trim_end_matches(['\n', '\r']).ends_with('\\') {
            match lines.next() {
                Some(more) => raw.push_str(more),
                None => break,
            }
        }
        let joined = raw.replace("\\\r\n", " ").replace("\\\n", " ");
        let line = match joined.trim_start().starts_with('#') {
            true => "",
            false => joined.split(" #").next().unwrap_or(&joined).trim(),
        };
        let line = line.to_owned();
        Some((raw, line))
    })
}

/// Development tools that production does not need.
const DEVELOPMENT: [&str; 24] = [
    "autopep8",
    "black",
    "bump2version",
    "bumpversion",
    "coverage",
    "flake8",
    "hypothesis",
    "isort",
    "mypy",
    "nox",
    "pip-tools",
    "pre-commit",
    "pycodestyle",
    "pyflakes",
    "pylint",
    "pyright",
    "pytest",
    "ruff",
    "sphinx",
    "tox",
    "twine",
    "yapf",
    "pydocstyle",
    "mkdocs",
];

impl Requirements {
    /// The first development tool among the packages.
    pub(super) fn development_tool(&self) -> Option<&str> {
        let tool = |name: &&String| {
            DEVELOPMENT.contains(&name.as_str()) || name.starts_with("pytest-") || name.starts_with("flake8-")
        };
        self.names.iter().find(tool).map(String::as_str)
    }
}

/// The package name in a requirement.
pub(super) fn name(requirement: &str) -> &str {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    end.map_or(requirement, |end| requirement.split_at(end).0)
}

/// The extras in a requirement, normalised.
pub(super) fn extras(requirement: &str) -> Vec<String> {
    let list = requirement.split(';').next().and_then(|r| r.split_once('[')).and_then(|(_, r)| r.split_once(']'));
    let list = list.map(|(list, _)| list).unwrap_or_default();
    list.split(',').map(normalised).filter(|extra| !extra.is_empty()).collect()
}

/// A normalised name, equal for all spellings of a package.
pub(super) fn normalised(name: &str) -> String {
    let mut out = String::new();
    for part in name.trim().to_lowercase().split(['-', '_', '.']).filter(|p| !p.is_empty()) {
        if !out.is_empty() {
            out.push('-');
        }
        out.push_str(part);
    }
    out
}
