//! The versions of tools that a project's files require.
//!
//! Invariant: if several files mention one tool, the one that takes precedence for the tool itself decides.

use serde_json::Value;

use super::tree;
use kiln_plan::{Source, Step};

/// A tool, its required versions in the syntax of a step's `tools`, and the file.
struct Pin {
    tools: &'static [&'static str],
    versions: String,
    file: &'static str,
}

/// Adds the versions that files require to the tools that steps use.
pub(super) fn apply(source: &dyn Source, steps: &mut [Step]) {
    for pin in pins(source) {
        for entry in
            steps.iter_mut().flat_map(|step| &mut step.tools).filter(|entry| pin.tools.contains(&entry.as_str()))
        {
            *entry = format!("{entry} {} ({})", pin.versions, pin.file);
        }
    }
}

fn pins(source: &dyn Source) -> Vec<Pin> {
    let all = [rust(source), go(source), node(source), bun(source), deno(source), python(source), ruby(source)];
    all.into_iter().chain([php(source), zig(source), hugo(source)]).flatten().collect()
}

fn rust(source: &dyn Source) -> Option<Pin> {
    let file = tree::first_of(source, &["rust-toolchain.toml", "rust-toolchain"])?;
    let text = tree::text(source, file)?;
    let table = text.parse::<toml::Table>().ok();
    let channel = match table.as_ref().and_then(|table| table.get("toolchain")?.get("channel")?.as_str()) {
        Some(channel) => channel.to_owned(),
        None => text.trim().to_owned(),
    };
    // `stable` and `nightly` are not versions.
    let versions = exactly(&channel)?;
    let file = if file == "rust-toolchain" { "rust-toolchain" } else { "rust-toolchain.toml" };
    Some(Pin { tools: &["cargo", "rustc"], versions, file })
}

/// The `go` line is the minimum version that compiles the module.
fn go(source: &dyn Source) -> Option<Pin> {
    let file = tree::first_of(source, &["go.mod", "go.work"])?;
    let text = tree::text(source, file)?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("go "))?;
    let version = numbers(version)?;
    Some(Pin {
        tools: &["go"],
        versions: format!(">={version}"),
        file: if file == "go.mod" { "go.mod" } else { "go.work" },
    })
}

fn node(source: &dyn Source) -> Option<Pin> {
    let tools = &["node"];
    for file in [".nvmrc", ".node-version"] {
        if let Some(versions) = tree::text(source, file).and_then(|text| about(first_line(&text))) {
            return Some(Pin { tools, versions, file });
        }
    }
    if let Some(versions) = tool_versions(source, &["nodejs", "node"]).and_then(|text| about(&text)) {
        return Some(Pin { tools, versions, file: ".tool-versions" });
    }
    let root = tree::json(source, "package.json").ok()??;
    let range = root.get("engines").and_then(|engines| engines.get("node")).and_then(Value::as_str)?;
    // npm itself only warns about another version, unless it is configured to be strict.
    let strict = tree::text(source, ".npmrc").is_some_and(|text| text.replace(' ', "").contains("engine-strict=true"));
    let versions = npm_range(range)?;
    Some(Pin { tools, versions: if strict { versions } else { format!("{versions}?") }, file: "package.json" })
}

/// The first of these files that has a version, in its first line.
fn in_file(
    source: &dyn Source,
    tools: &'static [&'static str],
    files: [&'static str; 2],
    read: fn(&str) -> Option<String>,
) -> Option<Pin> {
    let pin = |file: &'static str| {
        let versions = read(first_line(&tree::text(source, file)?))?;
        Some(Pin { tools, versions, file })
    };
    files.into_iter().find_map(pin).or_else(|| {
        let versions = tool_versions(source, tools).and_then(|text| read(&text))?;
        Some(Pin { tools, versions, file: ".tool-versions" })
    })
}

/// `packageManager` is not here: a worker may fetch that version.
fn bun(source: &dyn Source) -> Option<Pin> {
    in_file(source, &["bun"], [".bun-version", ".bun-version"], about).or_else(|| {
        let root = tree::json(source, "package.json").ok()??;
        let versions = npm_range(root.get("engines")?.get("bun")?.as_str()?)?;
        Some(Pin { tools: &["bun"], versions: format!("{versions}?"), file: "package.json" })
    })
}

fn deno(source: &dyn Source) -> Option<Pin> {
    in_file(source, &["deno"], [".dvmrc", ".deno-version"], about)
}

/// Composer's ranges are npm's but for `|` and for `~1.2`, which allows 1.3.
fn php(source: &dyn Source) -> Option<Pin> {
    let range = super::php::range(source)?;
    let parts = range.split('|').filter(|part| !part.trim().is_empty()).map(|part| {
        let words = part.replace(',', " ");
        let word = |word: &str| match word.strip_prefix('~').filter(|version| version.matches('.').count() < 2) {
            Some(version) => format!("^{version}"),
            None => word.to_owned(),
        };
        words.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    });
    let versions = npm_range(&parts.collect::<Vec<_>>().join(" || "))?;
    Some(Pin { tools: &["php"], versions, file: "composer.json" })
}

/// Before 1.0, each minor version is another language.
fn zig(source: &dyn Source) -> Option<Pin> {
    in_file(source, &["zig"], [".zigversion", ".zig-version"], about_minor).or_else(|| {
        let versions = format!(">={}", numbers(&super::zig::minimum(source)?)?);
        Some(Pin { tools: &["zig"], versions, file: "build.zig.zon" })
    })
}

fn hugo(source: &dyn Source) -> Option<Pin> {
    let tools = &["hugo"];
    in_file(source, tools, [".hugo-version", ".hugoversion"], exactly).or_else(|| match super::hugo::minimum(source) {
        Some(version) => Some(Pin { tools, versions: format!(">={}", numbers(&version)?), file: "module.hugoVersion" }),
        None => {
            let version = super::hugo::of_netlify(source)?;
            Some(Pin { tools, versions: format!(">={}?", numbers(&version)?), file: "netlify.toml" })
        }
    })
}

fn python(source: &dyn Source) -> Option<Pin> {
    let tools = &["python3"];
    if let Some(versions) = tree::text(source, ".python-version").and_then(|text| about_minor(first_line(&text))) {
        return Some(Pin { tools, versions, file: ".python-version" });
    }
    if let Some(versions) = tree::text(source, "runtime.txt").and_then(|text| about_minor(first_line(&text))) {
        return Some(Pin { tools, versions, file: "runtime.txt" });
    }
    if let Some(versions) = tool_versions(source, &["python"]).and_then(|text| about_minor(&text)) {
        return Some(Pin { tools, versions, file: ".tool-versions" });
    }
    if let Some(versions) = super::python::pipenv::python(source).and_then(|text| about_minor(&text)) {
        return Some(Pin { tools, versions, file: "Pipfile" });
    }
    let root = tree::toml(source, "pyproject.toml").ok()??;
    let range =
        root.get("project").and_then(|project| project.get("requires-python")).and_then(|value| value.as_str())?;
    // PEP 440's `~=3.11` allows 3.12, like a caret does from 1.0 on.
    let range = range.replace("~=", "^").replace("==", "=").replace(".*", "");
    let parts = range.split(',').map(str::trim).filter(|part| !part.starts_with('!') && !part.is_empty());
    let versions = parts.collect::<Vec<_>>().join(", ");
    versions.parse::<semver::VersionReq>().ok()?;
    Some(Pin { tools, versions, file: "pyproject.toml" })
}

fn ruby(source: &dyn Source) -> Option<Pin> {
    let tools = &["ruby"];
    if let Some(versions) = tree::text(source, ".ruby-version").and_then(|text| about_minor(first_line(&text))) {
        return Some(Pin { tools, versions, file: ".ruby-version" });
    }
    let versions = tool_versions(source, &["ruby"]).and_then(|text| about_minor(&text))?;
    Some(Pin { tools, versions, file: ".tool-versions" })
}

/// The version of a tool in `.tool-versions`, the file of asdf and mise.
fn tool_versions(source: &dyn Source, names: &[&str]) -> Option<String> {
    let text = tree::text(source, ".tool-versions")?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        names.contains(&words.next()?).then(|| words.next().map(str::to_owned))?
    })
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default()
}

/// The numbers of a version, without any prefix and suffix.
fn numbers(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '-');
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.trim_end_matches('.');
    numbers.starts_with(|c: char| c.is_ascii_digit()).then(|| numbers.to_owned())
}

/// The version exactly as written.
fn exactly(text: &str) -> Option<String> {
    text.trim().starts_with(|c: char| c.is_ascii_digit()).then(|| numbers(text).map(|numbers| format!("={numbers}")))?
}

/// Any version with the same major number, which Node's releases promise to be compatible.
fn about(text: &str) -> Option<String> {
    if text.contains('/') {
        return None;
    }
    Some(format!("={}", numbers(text)?.split('.').next()?))
}

/// Any patch of the same minor version.
fn about_minor(text: &str) -> Option<String> {
    if text.starts_with("pypy") || text.contains('/') {
        return None;
    }
    let numbers = numbers(text)?;
    Some(format!("={}", numbers.split('.').take(2).collect::<Vec<_>>().join(".")))
}

/// Converts npm's ranges to Cargo's syntax: a space means "and", `x` any number.
fn npm_range(range: &str) -> Option<String> {
    let alternatives: Option<Vec<String>> = range
        .split("||")
        .map(|part| {
            let part = part.trim().replace(".x", "").replace(".*", "").replace(" - ", " <=");
            let mut words: Vec<String> = Vec::new();
            for word in part.split_whitespace() {
                match words.last_mut() {
                    // `>= 18` is a single comparison.
                    Some(last) if last.chars().all(|c| "<>=^~".contains(c)) => last.push_str(word),
                    _ => words.push(word.to_owned()),
                }
            }
            let plain = |word: String| {
                let word = word.trim_start_matches('v').to_owned();
                if word.starts_with(|c: char| c.is_ascii_digit()) { format!("={word}") } else { word }
            };
            let words = words.into_iter().map(plain).collect::<Vec<_>>().join(", ");
            words.parse::<semver::VersionReq>().ok().map(|_| words)
        })
        .collect();
    alternatives.map(|all| all.join(" || ")).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_plan::MemorySource;

    fn asked(files: &[(&str, &str)]) -> Vec<String> {
        let source: MemorySource = files.iter().copied().collect();
        let tools = ["python3", "node", "cargo", "go", "ruby", "make"].map(str::to_owned).to_vec();
        let mut steps = vec![Step { tools, ..Step::new("a", "x") }];
        apply(&source, &mut steps);
        steps.remove(0).tools.into_iter().filter(|tool| tool.contains(' ')).collect()
    }

    #[test]
    fn each_languages_files_are_read_and_the_nearest_decides() {
        let python =
            [(".python-version", "3.12\n"), ("runtime.txt", "python-3.8.18"), (".tool-versions", "python 3.10.1\n")];
        assert_eq!(asked(&python), ["python3 =3.12 (.python-version)"]);
        assert_eq!(asked(&python[1..]), ["python3 =3.8 (runtime.txt)"]);
        assert_eq!(asked(&python[2..]), ["python3 =3.10 (.tool-versions)"]);
        let project = ("pyproject.toml", "[project]\nname = \"a\"\nrequires-python = \">=3.12,<4\"\n");
        assert_eq!(asked(&[project]), ["python3 >=3.12, <4 (pyproject.toml)"]);
        assert_eq!(
            asked(&[("rust-toolchain.toml", "[toolchain]\nchannel = \"1.75.0\"\n")]),
            ["cargo =1.75.0 (rust-toolchain.toml)"]
        );
        assert_eq!(asked(&[("rust-toolchain", "stable\n")]), [""; 0]);
        assert_eq!(asked(&[("go.mod", "module a\n\ngo 1.22.3\n")]), ["go >=1.22.3 (go.mod)"]);
        assert_eq!(asked(&[(".ruby-version", "ruby-3.2.1\n")]), ["ruby =3.2 (.ruby-version)"]);
        assert_eq!(asked(&[(".nvmrc", "v22.1.0\n")]), ["node =22 (.nvmrc)"]);
        assert_eq!(asked(&[(".nvmrc", "lts/iron\n")]), [""; 0]);
    }

    #[test]
    fn engines_are_a_recommendation_unless_npm_is_strict() {
        let engines = |range: &str| format!("{{\"engines\":{{\"node\":\"{range}\"}}}}");
        let of = |range: &str| asked(&[("package.json", &engines(range))]);
        assert_eq!(of(">= 18"), ["node >=18? (package.json)"]);
        assert_eq!(of("18.x || ^20.1"), ["node =18 || ^20.1? (package.json)"]);
        assert_eq!(of(">=18 <21"), ["node >=18, <21? (package.json)"]);
        assert_eq!(of("latest"), [""; 0]);
        let strict = asked(&[("package.json", &engines("22")), (".npmrc", "engine-strict = true\n")]);
        assert_eq!(strict, ["node =22 (package.json)"]);
    }
}
