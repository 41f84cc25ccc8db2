//! Determines a project's language if its files suggest several.
//!
//! Invariant: the order of languages only decides between equal weights, and everything that was considered is
//! reported.

use serde_json::Value;

use super::tree;
use kiln_plan::Source;

/// A language in which a project can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// Cargo.
    Rust,
    /// Go modules.
    Go,
    /// Maven, Gradle, or plain sources.
    Java,
    /// npm, pnpm, yarn.
    Node,
    /// pip, uv, poetry.
    Python,
    /// Bundler.
    Ruby,
    /// C and C++: CMake, Meson, Autoconf, Make.
    C,
}

impl Language {
    /// All languages, in the order that decides between equal weights.
    pub const ALL: [Language; 7] = [Self::Rust, Self::Go, Self::Java, Self::Node, Self::Python, Self::Ruby, Self::C];

    /// The name used in `--language` and `kiln.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Java => "java",
            Self::Node => "node",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::C => "c",
        }
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A language that Kiln cannot detect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one of rust, go, java, node, python, ruby, c")]
pub struct UnknownLanguage;

impl std::str::FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "rust" | "cargo" => Self::Rust,
            "go" | "golang" => Self::Go,
            "java" | "kotlin" | "maven" | "gradle" => Self::Java,
            "node" | "nodejs" | "javascript" | "typescript" | "npm" | "pnpm" | "yarn" => Self::Node,
            "python" | "pip" | "uv" | "poetry" => Self::Python,
            "ruby" | "bundler" => Self::Ruby,
            "c" | "c++" | "cpp" | "cxx" | "cmake" | "meson" | "make" | "autoconf" => Self::C,
            _ => return Err(UnknownLanguage),
        })
    }
}

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
        self.weight += weight;
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
                Language::Python => python(source, &mut evidence),
                Language::Ruby => ruby(source, &mut evidence),
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
    let manifests = ["pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"];
    if let Some(file) = tree::first_of(source, &manifests) {
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
    if let Some(file) = tree::first_of(source, &["config.ru", "config/application.rb", "bin/rails", "_config.yml"]) {
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
fn started_by(procfile: &str, language: Language) -> Option<&str> {
    let tools: &[&str] = match language {
        Language::Ruby => &["bundle", "rails", "puma", "ruby", "rake", "rackup", "unicorn"],
        Language::Python => {
            &["python", "python3", "gunicorn", "uvicorn", "celery", "flask", "hypercorn", "daphne", "waitress-serve"]
        }
        Language::Node => &["node", "npm", "yarn", "pnpm", "npx", "next"],
        Language::Java => &["java"],
        Language::Rust | Language::Go | Language::C => &[],
    };
    let commands = procfile.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| !name.starts_with('#'));
    commands
        .filter_map(|(_, command)| {
            let word = command.split_whitespace().find(|word| !word.contains('='))?;
            Some(tree::base(word))
        })
        .find(|word| tools.contains(word))
}
