//! The shell commands of a page: its fenced blocks, grouped by heading.

use std::path::{Path, PathBuf};

/// The commands under one heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub heading: String,
    pub blocks: Vec<Block>,
}

/// One fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its commands as a script.
    pub script: String,
    /// For a recorded session, its output.
    pub printed: String,
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every page of the repository that has shell commands.
pub fn all() -> Vec<String> {
    let mut pages = Vec::new();
    find(&root(), &mut pages);
    pages.retain(|page| !sections(page).is_empty());
    pages.sort();
    pages
}

fn find(dir: &Path, pages: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // Examples are separate projects, and generated files are not ours.
        let is_ours =
            !name.starts_with('.') && !["target", "examples", "node_modules", "kiln-out"].contains(&name.as_str());
        if is_ours && entry.file_type().unwrap().is_dir() {
            find(&path, pages);
        } else if is_ours && name.ends_with(".md") {
            pages.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// The sections of a page that have shell commands.
pub fn sections(page: &str) -> Vec<Section> {
    read(&std::fs::read_to_string(root().join(page)).unwrap())
}

fn read(text: &str) -> Vec<Section> {
    let mut sections = vec![Section { heading: String::new(), blocks: Vec::new() }];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if let Some(block) = block(language, &body) {
                sections.last_mut().unwrap().blocks.push(block);
            }
        } else if line.starts_with('#') {
            sections.push(Section { heading: line.trim_start_matches('#').trim().to_owned(), blocks: Vec::new() });
        }
    }
    sections.retain(|section| !section.blocks.is_empty());
    sections
}

/// A block of shell commands. A program that a page runs in the background runs in the foreground here, and returns
/// once it is ready.
fn block(language: &str, body: &[&str]) -> Option<Block> {
    let (commands, printed): (Vec<&str>, Vec<&str>) = match language {
        "sh" | "bash" | "shell" => (body.to_vec(), Vec::new()),
        "console" => body.iter().partition(|line| line.starts_with("$ ")),
        "" | "ini" | "toml" | "yaml" | "json" | "dockerfile" => return None,
        other => panic!("say what runs a block of `{other}`"),
    };
    let commands = commands.iter().map(|line| line.strip_prefix("$ ").unwrap_or(line));
    let script = commands.map(|line| format!("{}\n", line.strip_suffix(" &").unwrap_or(line))).collect();
    Some(Block { script, printed: printed.join("\n") })
}

#[test]
fn blocks_are_found_by_language_and_heading() {
    let text =
        "# A\n```sh\none # two\n```\n## B\n```toml\nx = 1\n```\n```\npicture\n```\n```console\n$ three &\nfour\n```\n";
    let block = |script: &str, printed: &str| Block { script: script.into(), printed: printed.into() };
    let section = |heading: &str, block| Section { heading: heading.into(), blocks: vec![block] };
    assert_eq!(read(text), [section("A", block("one # two\n", "")), section("B", block("three\n", "four"))]);
}
