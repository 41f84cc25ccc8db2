//! What an image or an error has, compared with what a case expects.

use serde_json::Value;

use crate::case::{Case, Details, File, Refusal};
use crate::image::{Files, Image, Kind};

/// What of an image is not as the case says. `server` takes the place of `{SERVER}`.
pub fn image(case: &Case, image: &Image, base: &Image, server: &str) -> Vec<String> {
    let expect = &case.expect;
    let mut problems = Vec::new();
    let (layers, entries) = image.shared_with(base);
    let (files, changes) = image.files();
    let changes = &changes[layers..];
    if let Some(expected) = &expect.layers {
        let expected: Vec<Vec<String>> = expected.iter().cloned().map(sorted).collect();
        if expected != changes {
            problems.push(format!("expected the layers {expected:?}, found {changes:?}"));
        }
    }
    if let Some(expected) = &expect.history {
        let found = history(image, entries);
        let expected: Vec<String> = expected.iter().map(|line| line.replace("{SERVER}", server)).collect();
        if expected != found {
            problems.push(format!("expected the history {expected:#?}, found {found:#?}"));
        }
    }
    for (path, expected) in &expect.files {
        problems.extend(file(&files, path, expected));
    }
    for (name, expected) in &expect.config {
        problems.extend(value(&format!("config.{name}"), expected, &image.config["config"][name]));
    }
    for (name, expected) in &expect.image {
        problems.extend(value(name, expected, &image.config[name]));
    }
    problems
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn history(image: &Image, skipped: usize) -> Vec<String> {
    let entries = image.config["history"].as_array().cloned().unwrap_or_default();
    let entries = entries.iter().skip(skipped).map(|entry| {
        let mark = if entry["empty_layer"] == true { "" } else { "+ " };
        format!("{mark}{}", entry["created_by"].as_str().unwrap_or_default())
    });
    entries.collect()
}

/// A value of the configuration. Sets are written as lists, and what is empty may be absent.
fn value(name: &str, expected: &toml::Value, found: &Value) -> Option<String> {
    let expected = serde_json::to_value(expected).unwrap();
    let is_set =
        |found: &Value| found.as_object().is_some_and(|map| map.values().all(|one| one == &serde_json::json!({})));
    let found = match found {
        found if expected.is_array() && is_set(found) => found.as_object().unwrap().keys().cloned().collect(),
        Value::Null if expected.is_array() => Value::Array(Vec::new()),
        Value::Null if expected.is_string() => Value::String(String::new()),
        found => found.clone(),
    };
    (found != expected).then(|| format!("expected {name} {expected}, found {found}"))
}

fn file(files: &Files, path: &str, expected: &File) -> Vec<String> {
    let details = match expected {
        File::Content(content) => {
            &Details { content: Some(content.clone()), kind: Some("file".to_owned()), ..Details::default() }
        }
        File::Details(details) => details,
    };
    let node = match (files.get(path.trim_start_matches('/')), details.absent) {
        (Some(node), false) => node,
        (None, true) => return Vec::new(),
        (Some(_), true) => return vec![format!("{path}: it is there")],
        (None, false) => return vec![format!("{path}: it is not there")],
    };
    let mut problems = Vec::new();
    let mut equal = |what: &str, expected: Option<&str>, found: &str| {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            problems.push(format!("{path}: expected {what} {expected:?}, found {found:?}"));
        }
    };
    let content = String::from_utf8_lossy(&node.content);
    equal("the kind", details.kind.as_deref().or(details.link.as_ref().map(|_| "link")), node.kind.name());
    equal("the content", details.content.as_deref(), &content);
    equal("the mode", details.mode.as_deref(), &format!("{:o}", node.mode));
    equal("the owner", details.owner.as_deref(), &format!("{}:{}", node.owner.0, node.owner.1));
    equal("the link", details.link.as_deref(), &node.link);
    equal("the time", details.time.map(|time| time.to_string()).as_deref(), &node.time.to_string());
    for line in details.lines.iter().filter(|line| !content.lines().any(|found| found == *line)) {
        equal("the line", Some(line), &content);
    }
    for (name, hex) in &details.xattrs {
        let found = node.xattrs.get(name).map(hex::encode).unwrap_or_default();
        equal(name, Some(hex), &found);
    }
    if let Some(other) = &details.same {
        let others: Vec<&String> = files
            .iter()
            .filter(|(at, one)| {
                one.kind == Kind::File && one.first == node.first && *at != path.trim_start_matches('/')
            })
            .map(|(at, _)| at)
            .collect();
        let is_same = if other.is_empty() {
            others.is_empty()
        } else {
            others.iter().any(|found| **found == other.trim_start_matches('/'))
        };
        if !is_same {
            equal("a hard link of", Some(other), &format!("{others:?}"));
        }
    }
    problems
}

/// What of a message is not as a case says.
pub fn error(expected: &Refusal, message: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !message.contains(&expected.text) {
        problems.push(format!("expected `{}` in: {message}", expected.text));
    }
    if let Some(line) = expected.line
        && !message.contains(&format!("Dockerfile:{line}: "))
        && !message.contains(&format!("`Dockerfile` line {line}: "))
    {
        problems.push(format!("expected line {line} in: {message}"));
    }
    if let Some(caret) = &expected.caret {
        let found = underlined(message);
        if found.as_deref() != Some(caret) {
            problems.push(format!("expected carets below `{caret}`, found them below {found:?} in: {message}"));
        }
    }
    problems
}

/// What carets underline in a message.
fn underlined(message: &str) -> Option<String> {
    let lines: Vec<&str> = message.lines().collect();
    lines.windows(2).find_map(|pair| {
        let (start, below) = (pair[1].find('^')?, pair[1].matches('^').count());
        if !pair[1].trim_start().starts_with('|') {
            return None;
        }
        let start = pair[1][..start].chars().count();
        Some(pair[0].chars().skip(start).take(below).collect())
    })
}
