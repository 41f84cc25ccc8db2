//! The same Dockerfiles for this reader and for Docker's own, which PyPI's `dockerfile` contains. `.ci/test` installs it.

#![allow(clippy::unwrap_used)]

mod generated;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_dockerfile::source::Source;
use kiln_dockerfile::text::{Arguments, Node, read};
use serde::Deserialize;

/// An instruction as both readers see it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Instruction {
    name: String,
    trigger: Option<String>,
    json: bool,
    line: String,
    lines: (usize, usize),
    flags: Vec<String>,
    values: Vec<String>,
    heredocs: Vec<(String, u32, String)>,
}

/// What the official reader makes of each text; `None` for one that it refuses. The outer `None` if it is not installed.
fn official(texts: &[String]) -> Option<Vec<Option<Vec<Instruction>>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/parse.py");
    let has_reader = |python: &&str| {
        Command::new(python).args(["-c", "import dockerfile"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let Some(python) = ["/opt/kiln-test-tools/bin/python", "python3"].into_iter().find(has_reader) else {
        assert!(
            std::env::var_os("KILN_TESTS_MUST_RUN").is_none(),
            "the Python package `dockerfile` is not installed; run `.ci/test`"
        );
        eprintln!("skipped: the Python package `dockerfile` is not installed");
        return None;
    };
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = serde_json::to_vec(texts).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn own(text: &str) -> Option<Vec<Instruction>> {
    let source = Source::new("Dockerfile", text);
    Some(read(text).ok()?.nodes.iter().map(|node| instruction(node, &source)).collect())
}

fn instruction(node: &Node, source: &Source) -> Instruction {
    let inner = node.trigger.as_deref().unwrap_or(node);
    let mut values: Vec<String> = inner.check.iter().map(|check| check.value.clone()).collect();
    match &inner.arguments {
        Arguments::Text(word) => values.extend(Some(word.value.clone()).filter(|text| !text.is_empty())),
        Arguments::Words(words) | Arguments::Json(words) => values.extend(words.iter().map(|word| word.value.clone())),
        Arguments::Pairs(pairs) => {
            values.extend(pairs.iter().flat_map(|pair| [pair.name.value.clone(), pair.value.value.clone()]));
        }
    }
    let known = kiln_dockerfile::text::INSTRUCTIONS.iter().any(|name| inner.keyword.value.eq_ignore_ascii_case(name));
    // The official reader has one empty value for what it does not know, and for an instruction that is stored twice.
    if !known || (inner.keyword.value.eq_ignore_ascii_case("ONBUILD") && inner.trigger.is_some()) {
        values = vec![String::new()];
    }
    Instruction {
        name: node.keyword.value.clone(),
        trigger: node.trigger.as_ref().map(|trigger| trigger.keyword.value.clone()),
        json: matches!(inner.arguments, Arguments::Json(_)),
        line: node.line.clone(),
        lines: source.lines(node.span),
        // It was read byte by byte, which is no longer the case.
        flags: node.flags.iter().map(|flag| flag.value.bytes().map(char::from).collect()).collect(),
        values,
        // The package does not show those of a stored instruction.
        heredocs: match &node.trigger {
            Some(_) => Vec::new(),
            None => node.heredocs.iter().map(|h| (h.name.clone(), h.descriptor, h.content.clone())).collect(),
        },
    }
}

/// Compares both readers.
fn compare(texts: &[String]) {
    let Some(theirs) = official(texts) else { return };
    let mut differences = Vec::new();
    for (text, theirs) in texts.iter().zip(theirs) {
        let own = own(text);
        if own != theirs && !is_known(text) {
            differences.push(difference(text, own, theirs));
        }
    }
    let (count, shown) = (differences.len(), differences.iter().take(8).cloned().collect::<Vec<_>>().join("\n"));
    assert_eq!(count, 0, "{count} of {} files are read differently:\n{shown}", texts.len());
}

/// The package contains a parser that is older than what is read here, which is BuildKit 0.32's.
fn is_known(text: &str) -> bool {
    // White space between `<<` and a name.
    let blank_name = ["<< ", "<<\t", "<<- ", "<<-\t"].iter().any(|blank| text.contains(blank));
    // Text after a JSON array, which was skipped.
    let has_more = text.lines().any(|line| {
        line.match_indices('[').any(|(at, _)| {
            let mut values = serde_json::Deserializer::from_str(&line[at..]).into_iter::<Vec<serde_json::Value>>();
            matches!(values.next(), Some(Ok(_))) && !line[at + values.byte_offset()..].trim().is_empty()
        })
    });
    // Flags, in which `\` was the escape character whatever the file says.
    let other_escape = text.starts_with("# escape=`") && text.contains("--");
    blank_name || has_more || other_escape
}

/// The first instruction that is read differently.
fn difference(text: &str, own: Option<Vec<Instruction>>, theirs: Option<Vec<Instruction>>) -> String {
    let (own, theirs) = match (own, theirs) {
        (Some(own), Some(theirs)) => (own, theirs),
        (own, _) => return format!("{text:?}: only {} refuses it", if own.is_none() { "Kiln" } else { "Docker" }),
    };
    let at = own.iter().zip(&theirs).position(|(own, theirs)| own != theirs).unwrap_or(own.len().min(theirs.len()));
    format!("{text:?}:\n  Docker {:?}\n  Kiln   {:?}", theirs.get(at), own.get(at))
}

#[test]
fn the_corpus_is_read_as_docker_reads_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/corpus");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert!(texts.len() >= 60, "expected at least 60 files, found {}", texts.len());
    compare(&texts);
}

#[test]
fn generated_files_are_read_as_docker_reads_them() {
    compare(&generated::files());
}
