//! Downloads of a CMake project: `FetchContent` and CPM while configuring, `ExternalProject` while building.
//!
//! Invariant: only the fetch step has network access, and its inputs are only the files that CMake reads.

use std::collections::BTreeSet;

use super::super::{
    found::{fetch_step, strings},
    shell, tree,
};
use super::tools;
use kiln_plan::{Source, Step};

/// The downloads in a tree's CMake files.
#[derive(Debug, Default)]
pub(super) struct Downloads {
    /// Whether `FetchContent` or CPM is used.
    pub(super) contents: bool,
    /// The file and command of a download at another time.
    other: Option<(String, &'static str)>,
    /// URLs of `FetchContent`, except those with variables.
    urls: Vec<String>,
    conan: bool,
    git: bool,
}

/// Reads the project's CMake files, except those of its tests and of bundled projects.
pub(super) fn find(source: &dyn Source) -> Downloads {
    let mut found = Downloads { conan: tree::has(source, "conan.lock"), ..Downloads::default() };
    if !tree::has(source, "CMakeLists.txt") {
        return found;
    }
    let aside = ["test", "tests", "vendor", "third_party", "external", "deps", "examples", "doc", "docs", "fuzzing"];
    for path in cmake_files(source) {
        if tree::parent(&path).split('/').any(|part| aside.contains(&part)) {
            continue;
        }
        let text = tree::text(source, &path).unwrap_or_default();
        found.urls.extend(urls(&text));
        let text = without_comments(&text);
        let calls = |name: &str| text.contains(&format!("{name}(")) || text.contains(&format!("{name} ("));
        let by_git = text.contains("git_repository");
        let remote =
            by_git || text.contains("http://") || text.contains("https://") || text.contains("github_repository");
        if calls("fetchcontent_declare") && remote || calls("cpmaddpackage") || calls("cpmfindpackage") {
            found.contents = true;
            found.git |= by_git || calls("cpmaddpackage");
        }
        let other = [("externalproject_add", "ExternalProject_Add"), ("file(download", "file(DOWNLOAD)")];
        for (call, name) in other {
            let called = if call.contains('(') { text.contains(call) } else { calls(call) };
            if called && remote && found.other.is_none() && !(call.starts_with("file") && text.contains("cpm_")) {
                found.other = Some((path.clone(), name));
            }
        }
    }
    found
}

fn cmake_files(source: &dyn Source) -> Vec<String> {
    tree::named(source, |name| name == "CMakeLists.txt" || name.ends_with(".cmake") || name.ends_with(".cmake.in"))
}

/// The URLs that follow a word `URL`.
fn urls(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words: Vec<&str> =
        lines.flat_map(|line| line.split([' ', '\t', '(', ')', '"'])).filter(|w| !w.is_empty()).collect();
    let is_url = |word: &str| word.starts_with("http") && !word.contains('$');
    // If several URLs follow, the others are mirrors of the first.
    let after = words.iter().skip(2).map(Some).chain([None]);
    let places = words.iter().zip(words.iter().skip(1)).zip(after).filter(|((word, _), _)| **word == "URL");
    let one = places.filter(|((_, url), next)| is_url(url) && !next.is_some_and(|word| word.contains("://")));
    one.map(|((_, url), _)| (*url).to_owned()).collect()
}

/// The text without comments, in lower case, because CMake's commands are case-insensitive.
fn without_comments(text: &str) -> String {
    let line = |line: &str| line.split_once(" #").map_or(line, |(code, _)| code).to_ascii_lowercase();
    text.lines().filter(|l| !l.trim_start().starts_with('#')).map(|l| line(l) + "\n").collect()
}

impl Downloads {
    /// Whether nothing is downloaded.
    pub(super) fn is_empty(&self) -> bool {
        !self.contents && self.other.is_none()
    }

    /// A note about downloads without a fetch step.
    pub(super) fn note(&self) -> Option<String> {
        let (path, command) = self.other.as_ref()?;
        Some(format!(
            "`{path}` downloads by `{command}`, and the step `compile` has no network: if the build fails for that, write \
             the plan down with `kiln init` and give the step `network = true`"
        ))
    }

    /// The fetch step.
    pub(super) fn step(&self, source: &dyn Source) -> Option<Step> {
        if !self.contents {
            return None;
        }
        let urls: String = self.urls.iter().map(|url| format!(" {}", tree::shell_word(url))).collect();
        let reachable = if urls.is_empty() { String::new() } else { format!("reachable{urls}\n") };
        let configure = format!("cmake -S . -B .kiln/configure {}", tools::cmake_arguments(self.conan));
        let run = format!("{reachable}fetch_contents {configure}\n");
        let mut step = fetch_step("fetch", "fetches what `FetchContent` and CPM name", run);
        step.inputs = self.inputs(source);
        step.outputs = strings([".kiln/fetched"]);
        step.env = [("CPM_SOURCE_CACHE".to_owned(), "/build/.kiln/fetched/cpm".to_owned())].into();
        step.tools = strings(["cmake", "make", "cc"]);
        if self.git {
            step.tools.push("git".into());
        }
        shell::provide(&mut step, &[shell::FETCH]);
        Some(step)
    }

    /// CMake's own files and those that they read with `file(READ)`, `file(STRINGS)` or `configure_file`.
    fn inputs(&self, source: &dyn Source) -> Vec<String> {
        let files = cmake_files(source);
        let mut named: BTreeSet<String> = BTreeSet::new();
        for path in &files {
            let text = tree::text(source, path).unwrap_or_default();
            for line in text.lines().filter(|line| reads_a_file(line)) {
                let words =
                    line.split([' ', '\t', '(', ')', '"', '/']).filter(|word| word.contains('.') || word.len() > 3);
                named.extend(words.map(str::to_owned));
            }
        }
        let read = source.paths().iter().filter(|path| named.contains(tree::base(path))).cloned();
        let mut inputs: Vec<String> = files.iter().cloned().chain(read).collect();
        inputs.sort();
        inputs.dedup();
        inputs
    }
}

fn reads_a_file(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["file(read", "file(strings", "file (read", "file (strings", "configure_file"]
        .iter()
        .any(|call| line.contains(call))
}
