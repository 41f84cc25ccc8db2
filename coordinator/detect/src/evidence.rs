//! Determines a project's language if its files suggest several.
//!
//! Invariant: the order of languages only decides between equal weights, and everything that was considered is
//! reported.

use serde_json::Value;

use super::{Language, deno, hugo, java, php, ruby, tree};
use kiln_plan::Source;

/// The evidence for a language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) language: Language,
    /// Its weight. A manifest that describes how to build the project counts 50, one that may only be for tooling 10.
    pub(super) weight: u32,
    /// The facts.
    pub(super) because: Vec<String>,
}

impl Evidence {
    fn new(language: Language) -> Self {
        Self { language, weight: 0, because: Vec::new() }
    }

    fn add(&mut self, weight: u32, because: impl Into<String>) {
        self.weight = self.weight.saturating_add(weight);
        self.because.push(because.into());
    }
}

/// The languages that the files suggest, heaviest first.
pub(super) fn weigh(source: &dyn Source) -> Vec<Evidence> {
    let procfile = tree::text(source, "Procfile").unwrap_or_default();
    let mut all: Vec<Evidence> = Language::ALL
        .into_iter()
        .map(|language| {
            let mut evidence = Evidence::new(language);
            match language {
                Language::Rust => rust(source, &mut evidence),
                Language::Go => go(source, &mut evidence),
                Language::Java => java(source, &mut evidence),
                Language::Node => node(source, &mut evidence),
                Language::Deno => deno(source, &mut evidence),
                Language::Python => python(source, &mut evidence),
                Language::Ruby => ruby(source, &mut evidence),
                Language::Php => php(source, &mut evidence),
                Language::Zig => zig(source, &mut evidence),
                Language::Hugo => hugo(source, &mut evidence),
                Language::C => c(source, &mut evidence),
            }
            if evidence.weight > 0
                && let Some(command) = started_by(&procfile, language)
            {
                evidence.add(30, format!("`Procfile` starts `{command}`"));
            }
            evidence
        })
        .filter(|evidence| evidence.weight > 0)
        .collect();
    // The sort is stable: equal weights keep the order of languages.
    all.sort_by_key(|evidence| std::cmp::Reverse(evidence.weight));
    all
}

fn rust(source: &dyn Source, evidence: &mut Evidence) {
    if tree::has(source, "Cargo.toml") {
        evidence.add(50, "`Cargo.toml` is a Cargo manifest");
    }
}

fn go(source: &dyn Source, evidence: &mut Evidence) {
    if let Some(file) = tree::first_of(source, &["go.work", "go.mod"]) {
        evidence.add(50, format!("`{file}` is a Go manifest"));
    }
}

fn java(source: &dyn Source, evidence: &mut Evidence) {
    if let Some(file) = tree::first_of(source, &java::BUILD_FILES) {
        evidence.add(50, format!("`{file}` is a build file"));
    } else if source.paths().iter().any(|path| path.ends_with(".java")) {
        evidence.add(5, "there are Java sources");
    }
}

/// A `package.json` often only serves a formatter, a linter or a site's assets.
fn node(source: &dyn Source, evidence: &mut Evidence) {
    if !tree::has(source, "package.json") {
        return;
    }
    let Ok(Some(root)) = tree::json(source, "package.json") else {
        evidence.add(10, "`package.json` is there");
        return;
    };
    let filled = |key: &str| match root.get(key) {
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    };
    let script = |name: &str| root.get("scripts").and_then(|scripts| scripts.get(name)).is_some();
    // `npm init` writes a `main` even if there is no such file.
    let main = root.get("main").and_then(Value::as_str).and_then(|path| tree::join("", path));
    let has_main = main.is_some_and(|path| tree::has(source, &path) || script("build"));
    let application = script("start") || filled("bin") || has_main || filled("exports") || filled("workspaces");
    if filled("napi") {
        evidence.add(70, "`package.json` builds a native module");
    } else if application {
        evidence.add(50, "`package.json` says what to run or to export");
    } else if filled("dependencies") || script("build") {
        evidence.add(30, "`package.json` has dependencies or a build script");
    } else {
        evidence.add(10, "`package.json` has only development tools");
    }
}

/// Editors and formatters read a `deno.json` too, and its tasks may start other tools.
fn deno(source: &dyn Source, evidence: &mut Evidence) {
    let Some(manifest) = tree::first_of(source, &deno::MANIFESTS) else { return };
    if deno::is_node_instead(source) {
        evidence.add(10, format!("`{manifest}` is there, but the packages are locked by another tool"));
        return;
    }
    evidence.add(50, format!("`{manifest}` configures Deno"));
    if tree::has(source, "deno.lock") {
        evidence.add(15, "`deno.lock` locks what it imports");
    }
}

/// A site of Ruby's or Python's may have a `composer.json` for a plugin; an application has code of its own.
fn php(source: &dyn Source, evidence: &mut Evidence) {
    if !tree::has(source, "composer.json") {
        return;
    }
    evidence.add(40, "`composer.json` is a package");
    if let Some(file) = php::application(source) {
        evidence.add(30, format!("`{file}` is an application's"));
    }
}

/// Zig often builds what is written in C, beside other build files.
fn zig(source: &dyn Source, evidence: &mut Evidence) {
    if !tree::has(source, "build.zig") {
        return;
    }
    if tree::has(source, "build.zig.zon")
        || source.paths().iter().any(|path| path.starts_with("src/") && path.ends_with(".zig"))
    {
        evidence.add(50, "`build.zig` builds a project in Zig");
    } else {
        evidence.add(20, "`build.zig` is a build file");
    }
}

/// A site's `package.json` or `go.mod` only serves its assets and modules.
fn hugo(source: &dyn Source, evidence: &mut Evidence) {
    match hugo::configuration(source) {
        Some((file, true)) => evidence.add(60, format!("`{file}` configures a site of Hugo")),
        Some((file, false)) => evidence.add(45, format!("`{file}` is beside `content`, as in a site of Hugo")),
        None => {}
    }
}

fn python(source: &dyn Source, evidence: &mut Evidence) {
    if let Ok(Some(root)) = tree::toml(source, "pyproject.toml") {
        let tool = |name: &str| root.get("tool").is_some_and(|tools| tools.get(name).is_some());
        if root.contains_key("project") || tool("poetry") || tool("uv") {
            evidence.add(50, "`pyproject.toml` describes a project");
        }
        let backend = root.get("build-system").and_then(|system| system.get("build-backend")).and_then(|b| b.as_str());
        match backend {
            Some(backend @ ("maturin" | "setuptools_rust" | "mesonpy" | "scikit_build_core.build")) => {
                evidence.add(20, format!("its build backend, `{backend}`, drives the other compiler itself"));
            }
            Some(backend) => evidence.add(10, format!("its build backend is `{backend}`")),
            None if root.contains_key("build-system") => evidence.add(10, "`pyproject.toml` has a build system"),
            None => {}
        }
    } else if tree::has(source, "pyproject.toml") {
        evidence.add(30, "`pyproject.toml` is there");
    }
    if tree::has(source, "setup.py") {
        evidence.add(if evidence.weight > 0 { 5 } else { 50 }, "`setup.py` builds a package");
    }
    let requirements =
        tree::first_of(source, &["requirements.txt", "requirements.in"]).map(str::to_owned).or_else(|| {
            tree::named(source, |name| name.starts_with("requirements") && name.ends_with(".txt")).into_iter().next()
        });
    // For example `requirements/production.txt`.
    let requirements = super::python::requirements_file(source).or(requirements);
    if evidence.weight == 0
        && let Some(file) = requirements
    {
        evidence.add(30, format!("`{file}` lists requirements"));
    }
    if evidence.weight == 0 && tree::has(source, "Pipfile") {
        evidence.add(40, "`Pipfile` names what it needs");
    }
    if evidence.weight > 0 && tree::has(source, "manage.py") {
        evidence.add(30, "`manage.py` is an application's");
    } else if evidence.weight > 0
        && let Some(file) =
            tree::first_of(source, &["wsgi.py", "asgi.py", "app.py", "main.py", "uv.lock", "poetry.lock"])
    {
        evidence.add(10, format!("`{file}` is there"));
    }
}

fn ruby(source: &dyn Source, evidence: &mut Evidence) {
    if !tree::has(source, "Gemfile") {
        return;
    }
    evidence.add(30, "`Gemfile` is there");
    if let Some(file) = ruby::application(source).or_else(|| tree::first_of(source, &["_config.yml"])) {
        evidence.add(40, format!("`{file}` is an application's"));
    } else if source.paths().iter().any(|path| path.ends_with(".gemspec") && !path.contains('/')) {
        evidence.add(15, "a `.gemspec` describes a gem");
    }
}

/// Weighs less than a manifest: a Makefile often only wraps another language's tool.
fn c(source: &dyn Source, evidence: &mut Evidence) {
    let files = ["CMakeLists.txt", "meson.build", "configure", "configure.ac", "configure.in"];
    if let Some(file) = tree::first_of(source, &files) {
        evidence.add(25, format!("`{file}` is a build file"));
    } else if let Some(file) = tree::first_of(source, &["GNUmakefile", "makefile", "Makefile"]) {
        evidence.add(8, format!("`{file}` is a makefile"));
    } else if source.paths().iter().any(|path| path.ends_with("/configure") || path.ends_with("/configure.ac")) {
        evidence.add(4, "a directory has a `configure`");
    }
}

/// The command in a `Procfile` that runs this language.
pub(super) fn started_by(procfile: &str, language: Language) -> Option<&str> {
    let tools: &[&str] = match language {
        Language::Ruby => &["bundle", "rails", "puma", "ruby", "rake", "rackup", "unicorn"],
        Language::Python => {
            &["python", "python3", "gunicorn", "uvicorn", "celery", "flask", "hypercorn", "daphne", "waitress-serve"]
        }
        Language::Node => &["node", "npm", "yarn", "pnpm", "npx", "next", "bun", "bunx"],
        Language::Deno => &["deno"],
        Language::Php => &["php", "heroku-php-apache2", "heroku-php-nginx"],
        Language::Java => &["java"],
        Language::Rust | Language::Go | Language::C | Language::Zig | Language::Hugo => &[],
    };
    let commands = procfile.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| !name.starts_with('#'));
    commands
        .filter_map(|(_, command)| {
            let word = command.split_whitespace().find(|word| !word.contains('='))?;
            Some(tree::base(word))
        })
        .find(|word| tools.contains(word))
}
