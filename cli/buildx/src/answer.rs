//! What is answered instead of a build: findings of rules, arguments and secrets, stages.

use std::collections::{BTreeMap, BTreeSet};

use kiln_dockerfile::lint::Lint;
use kiln_dockerfile::patterns::Ignore;
use kiln_dockerfile::{Bases, Contexts, Dockerfile, NamedContext, Operator, Options, Platform, RunMount};
use kiln_dockerfile::{arguments, check, lower, parse, targets};
use serde_json::{Value, json};

use crate::call::{Call, Method};
use crate::request::Request;

/// Lines of a file that are shown around a finding.
const AROUND: usize = 1;

/// What is printed, on standard output and on standard error, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// What is printed on standard output.
    pub out: String,
    /// An error.
    pub error: Option<String>,
    /// The exit code.
    pub code: u8,
}

/// The answer about a Dockerfile. `name` is what it is called, `architecture` that of this machine; `ignore` is the name and the text of
/// the `.dockerignore`.
pub fn answer(request: &Request, name: &str, text: &str, ignore: Option<(&str, &str)>, architecture: &str) -> Answer {
    let file = match parse(name, text) {
        Ok(file) => file,
        Err(error) if request.call.json && request.call.method == Method::Check => {
            let found = json!({ "warnings": [], "buildError": { "message": error.to_string() } });
            return Answer { out: format!("{found:#}\n"), error: None, code: 1 };
        }
        Err(error) => return failed(error.render(false)),
    };
    let options = match options(request, ignore, architecture) {
        Ok(options) => options,
        Err(error) => return failed(error),
    };
    match request.call.method {
        Method::Build => Answer::default(),
        Method::Check => checked(&file, name, &options, request.call),
        Method::Outline => outlined(&file, &options, request.call),
        Method::Targets => listed(&file, request.call),
    }
}

fn failed(error: String) -> Answer {
    Answer { out: String::new(), error: Some(error), code: 1 }
}

fn options(request: &Request, ignore: Option<(&str, &str)>, architecture: &str) -> Result<Options, String> {
    let mut contexts = Contexts::default();
    for (name, value) in &request.contexts {
        contexts.add(name, NamedContext::read(value)?);
    }
    let ignore = ignore.map(|(name, text)| Ignore::read(name, text)).transpose();
    let build_platform = Platform::linux(architecture);
    let platform = request.platforms.first().map(|text| Platform::read(text, &build_platform)).transpose()?;
    Ok(Options {
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        platform,
        build_platform,
        contexts,
        labels: request.labels.clone(),
        ignore: ignore.map_err(|error| error.render(false))?,
        ..Options::default()
    })
}

/// The findings of rules; any is a failure, as with buildx.
fn checked(file: &Dockerfile, name: &str, options: &Options, call: Call) -> Answer {
    let options = Options { all_stages: options.target.is_none(), ..options.clone() };
    let (lints, error) = check(file, &options, &Bases::assumed());
    let code = u8::from(!call.ignore_status && (!lints.is_empty() || error.is_some()));
    if call.json {
        let warnings: Vec<Value> = lints.iter().map(of_lint).collect();
        let mut found = json!({ "warnings": warnings, "sources": [{ "filename": name }] });
        if let Some((error, found)) = error.as_ref().zip(found.as_object_mut()) {
            let shown = json!({ "message": error.to_string(), "line": error.line() });
            found.insert("buildError".to_owned(), shown);
        }
        return Answer { out: format!("{found:#}\n"), error: None, code };
    }
    let mut out = match (lints.len(), &error) {
        (0, None) => "Check complete, no warnings found.\n".to_owned(),
        (0, Some(_)) => String::new(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (count, _) => format!("Check complete, {count} warnings have been found!\n"),
    };
    for lint in &lints {
        out.push_str(&format!("\nWARNING: {}\n{}\n{}", lint.rule.name(), lint.message, excerpt(file, name, lint.line)));
    }
    Answer { out, error: error.map(|error| error.render(false)), code }
}

fn of_lint(lint: &Lint) -> Value {
    let at = json!({ "line": lint.line });
    json!({
        "ruleName": lint.rule.name(),
        "description": lint.message,
        "detail": lint.message,
        "location": { "ranges": [{ "start": at, "end": at }] },
    })
}

/// A line with those around it.
fn excerpt(file: &Dockerfile, name: &str, line: usize) -> String {
    const RULE: &str = "--------------------";
    let lines: Vec<&str> = file.source.text().lines().collect();
    let mut shown = format!("{name}:{line}\n{RULE}\n");
    let (first, last) = (line.saturating_sub(AROUND).max(1), line.saturating_add(AROUND).min(lines.len()));
    for number in first..=last {
        let mark = if number == line { ">>>" } else { "   " };
        let text: String = lines
            .get(number.saturating_sub(1))
            .unwrap_or(&"")
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        shown.push_str(&format!("{number:4} | {mark} {text}\n"));
    }
    shown.push_str(RULE);
    shown.push('\n');
    shown
}

/// The stage that is built.
fn chosen(file: &Dockerfile, options: &Options) -> String {
    let last = file.stages.last().and_then(|stage| stage.name.clone());
    options.target.clone().or(last).unwrap_or_else(|| "(default)".to_owned())
}

fn outlined(file: &Dockerfile, options: &Options, call: Call) -> Answer {
    let build = match lower(file, options, &Bases::assumed()) {
        Ok(build) => build,
        Err(error) => return failed(error.render(false)),
    };
    let (mut secrets, mut agents, mut caches): (BTreeMap<&str, bool>, BTreeMap<&str, bool>, BTreeSet<&str>) =
        Default::default();
    for operation in &build.operations {
        let Operator::Run(run) = &operation.kind else { continue };
        for mount in &run.mounts {
            match mount {
                RunMount::Secret { id, required, .. } => *secrets.entry(id).or_default() |= required,
                RunMount::Ssh { id, required, .. } => *agents.entry(id).or_default() |= required,
                RunMount::Cache { id, .. } => drop(caches.insert(id)),
                _ => {}
            }
        }
    }
    let mut args: Vec<(String, String, String)> = Vec::new();
    for argument in arguments(file) {
        let value = options.build_args.get(&argument.name).cloned().or(argument.default).unwrap_or_default();
        let about = argument.description.unwrap_or_default();
        match args.iter_mut().find(|(name, ..)| *name == argument.name) {
            // A stage that imports an argument has no value of its own.
            Some(known) if known.1.is_empty() => known.1 = value,
            Some(_) => {}
            None => args.push((argument.name, value, about)),
        }
    }
    let target = chosen(file, options);
    if call.json {
        let mounted = |of: &BTreeMap<&str, bool>| -> Vec<Value> {
            of.iter().map(|(id, required)| json!({ "name": id, "required": required })).collect()
        };
        let args: Vec<Value> = args
            .iter()
            .map(|(name, value, about)| json!({ "name": name, "value": value, "description": about }))
            .collect();
        let caches: Vec<Value> = caches.iter().map(|id| json!({ "ID": id })).collect();
        let found = json!({
            "name": target, "args": args, "secrets": mounted(&secrets), "ssh": mounted(&agents), "cache": caches,
        });
        return Answer { out: format!("{found:#}\n"), ..Answer::default() };
    }
    let mut out = format!("TARGET: {target}\n");
    let mut section = |title: [&str; 3], rows: Vec<[String; 3]>| {
        if !rows.is_empty() {
            out.push('\n');
            out.push_str(&table(title, &rows));
        }
    };
    section(
        ["BUILD ARG", "VALUE", "DESCRIPTION"],
        args.into_iter().map(|(name, value, about)| [name, value, about]).collect(),
    );
    let rows = |of: BTreeMap<&str, bool>| -> Vec<[String; 3]> {
        let word = |required: bool| if required { "true".to_owned() } else { String::new() };
        of.into_iter().map(|(id, required)| [id.to_owned(), word(required), String::new()]).collect()
    };
    section(["SECRET", "REQUIRED", ""], rows(secrets));
    section(["SSH", "REQUIRED", ""], rows(agents));
    Answer { out, ..Answer::default() }
}

fn listed(file: &Dockerfile, call: Call) -> Answer {
    let stages = targets(file);
    if call.json {
        let stages: Vec<Value> = stages
            .iter()
            .map(|stage| {
                json!({
                    "name": stage.name, "default": stage.is_default, "description": stage.description, "base": stage.base,
                    "platform": stage.platform, "location": { "ranges": [{ "start": { "line": stage.line } }] },
                })
            })
            .collect();
        return Answer { out: format!("{:#}\n", json!({ "targets": stages })), ..Answer::default() };
    }
    let row = |stage: kiln_dockerfile::Target| {
        let name = match (stage.name, stage.is_default) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name,
            (None, true) => "(default)".to_owned(),
            (None, false) => return None,
        };
        Some([name, stage.description.unwrap_or_default(), String::new()])
    };
    let rows: Vec<[String; 3]> = stages.into_iter().filter_map(row).collect();
    Answer { out: table(["TARGET", "DESCRIPTION", ""], &rows), ..Answer::default() }
}

/// Columns as wide as they have to be.
fn table(title: [&str; 3], rows: &[[String; 3]]) -> String {
    let title = title.map(str::to_owned);
    let width =
        |at: usize| rows.iter().chain([&title]).filter_map(|row| Some(row.get(at)?.chars().count())).max().unwrap_or(0);
    let widths = [width(0), width(1)];
    let line = |row: &[String; 3]| {
        let line = format!("{:3$}   {:4$}   {}", row[0], row[1], row[2], widths[0], widths[1]);
        format!("{}\n", line.trim_end())
    };
    std::iter::once(&title).chain(rows).map(line).collect()
}
