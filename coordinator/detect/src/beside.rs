//! Which languages of one root are built beside each other.
//!
//! Invariant: a language is built beside another only if its files make something of their own, and no build runs the
//! other's. Whatever is not built is reported with the reason.

use kiln_plan::Source;

use super::{Language, evidence::Evidence, products, tree};

/// Below this weight, the evidence itself says that there are only tools.
const TOOLING: u32 = 10;

/// The languages to build, heaviest first, each with what it makes, and what else was considered. What the only one makes is not asked.
pub(super) fn choose(source: &dyn Source, weighed: Vec<Evidence>) -> (Vec<(Language, Option<String>)>, Vec<String>) {
    let mut chosen: Vec<(Language, Option<String>)> = Vec::new();
    let mut considered = Vec::new();
    for evidence in weighed {
        let language = evidence.language;
        if chosen.is_empty() {
            chosen.push((language, None));
            continue;
        }
        let served = chosen.iter().find_map(|(other, _)| is_served(source, language, *other));
        let made = match served {
            Some(reason) => Err(reason),
            None => products::of(source, language).map_err(str::to_owned),
        };
        match made {
            Ok(made) => chosen.push((language, Some(made))),
            Err(reason) => considered.push(words(&evidence, &reason)),
        }
    }
    if let [(first, made), _, ..] = &mut chosen[..] {
        *made = products::of(source, *first).ok();
    }
    (chosen, considered)
}

/// A language that is not built: its evidence, and why that is not enough, unless the evidence says so itself.
fn words(evidence: &Evidence, reason: &str) -> String {
    let known = format!("{} ({})", evidence.language, evidence.because.join("; "));
    if evidence.weight > TOOLING { format!("{known}: {reason}") } else { known }
}

/// Why a language is part of the build of a heavier one, or that one of it.
fn is_served(source: &dyn Source, language: Language, other: Language) -> Option<String> {
    let reason = match (other, language) {
        (Language::Ruby, Language::Node) => Some("its packages are for the assets of the Ruby application"),
        (Language::Php, Language::Node) => Some("its packages are for the assets of the PHP application"),
        (Language::Hugo, Language::Node) => Some("its packages are for the assets of the site"),
        (Language::Deno, Language::Node) | (Language::Node, Language::Deno) => {
            Some("Deno and Node run the same sources")
        }
        (Language::Zig, Language::C) | (Language::C, Language::Zig) => Some("Zig compiles C itself"),
        _ => None,
    };
    let runs = || [(language, other), (other, language)].into_iter().find_map(|(one, two)| runs(source, one, two));
    reason.map(str::to_owned).or_else(runs)
}

/// How the build of one language runs that of another.
fn runs(source: &dyn Source, driver: Language, driven: Language) -> Option<String> {
    if (driver, driven) == (Language::Go, Language::C) && products::go_sources(source).any(|(_, text)| is_cgo(&text)) {
        return Some("Go's sources call C".to_owned());
    }
    build_files(source, driver).into_iter().find_map(|(path, text)| {
        let said = commands(driven).iter().find(|command| says(&text, command))?;
        Some(format!("`{path}` runs `{}`", said.trim_matches(['"', '\''])))
    })
}

fn is_cgo(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "import \"C\"")
}

/// The texts that say what a language's build runs, each with its path.
fn build_files(source: &dyn Source, language: Language) -> Vec<(&'static str, String)> {
    let paths: &[&'static str] = match language {
        Language::Rust => &["build.rs"],
        Language::Java => &["pom.xml", "build.gradle", "build.gradle.kts"],
        Language::Node => return vec![("package.json", super::node::build_scripts(source))],
        Language::Deno => &super::deno::MANIFESTS,
        Language::Python => &["pyproject.toml", "setup.py"],
        Language::Ruby => &["Rakefile"],
        Language::Zig => &["build.zig"],
        Language::C => &["CMakeLists.txt", "meson.build"],
        Language::Go | Language::Php | Language::Hugo => &[],
    };
    paths.iter().filter_map(|path| Some((*path, tree::text(source, path)?))).collect()
}

/// What a build says that runs the build of this language. A word that is common in comments only counts with what
/// follows it, or as an argument.
fn commands(language: Language) -> &'static [&'static str] {
    match language {
        Language::Rust => &[
            "cargo build",
            "cargo rustc",
            "cargo install",
            "\"cargo\"",
            "'cargo'",
            "maturin",
            "setuptools_rust",
            "setuptools-rust",
            "wasm-pack",
            "napi build",
            "corrosion_import_crate",
        ],
        Language::Go => &["go build", "go install", "go run", "\"go\"", "'go'"],
        Language::Java => &["mvn", "mvnw", "gradle", "gradlew"],
        Language::Node => &[
            "npm ci",
            "npm install",
            "npm run",
            "npx",
            "yarn install",
            "yarn run",
            "yarn build",
            "pnpm install",
            "pnpm run",
            "pnpm build",
            "bun install",
            "bun run",
            "jlpm",
            "\"npm\"",
            "'npm'",
            "\"yarn\"",
            "'yarn'",
            "\"pnpm\"",
            "'pnpm'",
            "frontend-maven-plugin",
            "com.github.node-gradle.node",
        ],
        Language::Deno => &["deno task", "deno run", "deno compile", "\"deno\""],
        Language::Python => {
            &["setup.py", "python -m build", "python3 -m build", "uv build", "poetry build", "pip wheel"]
        }
        Language::Ruby => &["bundle exec", "rake"],
        Language::Php => &["composer install"],
        Language::Zig => &["zig build", "\"zig\"", "ziglang"],
        Language::Hugo => &["hugo"],
        Language::C => &["cmake", "cmake-js", "meson", "mesonpy", "scikit_build_core.build", "skbuild", "node-gyp"],
    }
}

/// Whether a text has these words, which are no part of longer ones.
fn says(text: &str, words: &str) -> bool {
    let continues = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let quoted = words.starts_with(['"', '\'']);
    text.match_indices(words).any(|(at, _)| {
        let (before, after) = text.split_at(at);
        let before = before.chars().next_back();
        let after = after.strip_prefix(words).and_then(|after| after.chars().next());
        quoted || !before.is_some_and(continues) && !after.is_some_and(continues)
    })
}

#[cfg(test)]
mod tests {
    use super::says;

    #[test]
    fn words_count_by_themselves_and_arguments_in_quotes() {
        assert!(says("vite build && cargo build --release", "cargo build"));
        assert!(says("Command::new(\"cargo\")", "\"cargo\""));
        assert!(!says("cargo-build", "cargo"));
        assert!(!says("mycargo build", "cargo build"));
        assert!(!says("cargo buildings", "cargo build"));
    }
}
