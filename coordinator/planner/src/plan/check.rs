//! Checks that steps and artifacts form a valid build, and sorts the steps.
//!
//! Invariant: a plan that passes can be run front to back, each step finding what it needs, and two steps that do not
//! depend on each other never write the same path of one tree.

use std::collections::{BTreeMap, BTreeSet};

use super::{Artifact, ArtifactKind, PRINTED, Step, caches, glob_error, path_problem, words};

fn runners() -> String {
    kiln_runners::Tool::ALL.map(|tool| format!("`{}`", tool.command())).join(", ")
}

/// Why steps and artifacts do not form a valid build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its reports are no outputs.
    #[error(
        "step `{step}` has no `outputs`, so nothing is kept that `{report}` in `reports` could name: add what its tests write to `outputs`, or give `reports = [\"-\"]`, which reads what `cargo test`, `go test` and `ctest` print"
    )]
    Reports {
        /// The step.
        step: String,
        /// The first of its reports.
        report: String,
    },
    /// There is nothing to do.
    #[error("the plan has no step: add one as `[steps.NAME]` with a `run`")]
    NoSteps,
    /// It runs failed tests again, and nothing says which failed.
    #[error(
        "step `{step}` has `retries` but no `reports`, so which of its tests fail is unknown: add `reports`, such as `reports = [\"-\"]` for `cargo test`, `go test` and `ctest`"
    )]
    Retries {
        /// The step.
        step: String,
    },
    /// It has shards that follow from its tests, and nothing says what these take.
    #[error(
        "step `{step}` has `shards = \"auto\"` but no `reports`, so what its tests take is unknown: add `reports`, or give `shards` a number"
    )]
    AutoShards {
        /// The step.
        step: String,
    },
    /// Each of its shards would do the same.
    #[error(
        "step `{step}` has `shards`, but each would run all tests: Kiln divides those of {} when `run` starts one of them alone; another command divides them itself, as in `./run-tests --shard $KILN_SHARD/$KILN_SHARDS`, or `KILN_SHARD=$KILN_SHARD ./run-tests` if that reads the variable",
        runners()
    )]
    Shards {
        /// The step.
        step: String,
    },
    /// An invalid step name.
    #[error("invalid step name `{name}`: expected lower-case letters, digits, `-` and `_`")]
    StepName {
        /// The name.
        name: String,
    },
    /// An invalid artifact name.
    #[error("invalid artifact name `{name}`: expected letters, digits, `.`, `-` and `_`")]
    ArtifactName {
        /// The name.
        name: String,
    },
    /// A step needs an unknown step.
    #[error("step `{step}` needs unknown step `{need}`: {hint}")]
    UnknownNeed {
        /// The step.
        step: String,
        /// The name it needs.
        need: String,
        /// A suggestion: the nearest name, or all names.
        hint: String,
    },
    /// Steps that depend on each other.
    #[error("steps form a cycle: {}: remove one of these `needs`", cycle_words(.steps))]
    Cycle {
        /// The steps of the cycle: each needs the next, and the last needs the first.
        steps: Vec<String>,
    },
    /// A path that is not inside the tree.
    #[error("step `{step}` has `{path}` in `{key}`, which {problem}: expected a path relative to the project's root")]
    Path {
        /// The step.
        step: String,
        /// The key that contains it.
        key: &'static str,
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An invalid glob.
    #[error("step `{step}` has the pattern `{glob}` in `{key}`, which cannot be read: {problem}")]
    Glob {
        /// The step.
        step: String,
        /// The key that contains it.
        key: &'static str,
        /// The glob.
        glob: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two steps write the same path.
    #[error(
        "steps `{first}` and `{second}` both write `{path}`, and neither needs the other: \
         give one another output, or name it in the other's `needs`"
    )]
    SharedOutput {
        /// One step.
        first: String,
        /// The other.
        second: String,
        /// The path.
        path: String,
    },
    /// One step lists an output twice, or a directory and something in it.
    #[error("step `{step}` names the output `{path}` twice: name it once")]
    RepeatedOutput {
        /// The step.
        step: String,
        /// The output.
        path: String,
    },
    /// A variable that cannot be set.
    #[error("step `{step}` sets `{name}`, {problem}")]
    Variable {
        /// The step.
        step: String,
        /// The variable.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A secret that the step cannot get.
    #[error("step `{step}` asks for the secret `{name}`, {problem}")]
    Secret {
        /// The step.
        step: String,
        /// The secret.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A gate cannot be passed.
    #[error(transparent)]
    Gates(#[from] kiln_plan::gates::Error),
    /// A step cannot have its caches.
    #[error(transparent)]
    Caches(#[from] caches::Error),
    /// An artifact refers to an unknown step.
    #[error("artifact `{artifact}` is from unknown step `{from}`: {hint}")]
    UnknownFrom {
        /// The artifact.
        artifact: String,
        /// The name.
        from: String,
        /// A suggestion: the nearest name, or all names.
        hint: String,
    },
    /// An artifact's file is not an output of its steps.
    #[error("artifact `{artifact}` takes `{path}`, which is not an output of {from}: their outputs are {outputs}")]
    NoOutput {
        /// The artifact.
        artifact: String,
        /// The file.
        path: String,
        /// Its steps.
        from: String,
        /// Their outputs.
        outputs: String,
    },
    /// A file's destination is not inside the artifact.
    #[error("artifact `{artifact}` puts a file at `{path}`, which {problem}: expected a path inside the artifact")]
    Destination {
        /// The artifact.
        artifact: String,
        /// The destination.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Validates steps and artifacts, and returns the steps sorted so that each follows those it needs, otherwise in their
/// original order.
pub(super) fn check(steps: Vec<Step>, artifacts: &[Artifact]) -> Result<Vec<Step>, Error> {
    let of_dockerfile = |artifact: &Artifact| matches!(artifact.kind, ArtifactKind::Dockerfile(_));
    if steps.is_empty() && !artifacts.iter().any(of_dockerfile) {
        return Err(Error::NoSteps);
    }
    for step in &steps {
        check_step(step, &steps)?;
    }
    let steps = sort(steps)?;
    check_outputs(&steps, artifacts)?;
    for artifact in artifacts {
        check_artifact(artifact, &steps)?;
    }
    Ok(steps)
}

fn check_step(step: &Step, all: &[Step]) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if step.name.is_empty() || !step.name.chars().all(allowed) {
        return Err(Error::StepName { name: step.name.clone() });
    }
    for need in &step.needs {
        if !all.iter().any(|s| s.name == *need) {
            let others = all.iter().map(|s| s.name.as_str()).filter(|n| *n != step.name);
            let hint = words::hint(need, others);
            return Err(Error::UnknownNeed { step: step.name.clone(), need: need.clone(), hint });
        }
    }
    let files = step.files.keys().map(|path| ("files", path));
    let directory = step.working_directory.iter().map(|path| ("working_directory", path));
    for (key, path) in step.outputs.iter().map(|path| ("outputs", path)).chain(files).chain(directory) {
        if let Some(problem) = path_problem(path) {
            return Err(Error::Path { step: step.name.clone(), key, path: path.clone(), problem });
        }
    }
    for (key, globs) in [("inputs", &step.inputs), ("unversioned", &step.unversioned), ("reports", &step.reports)] {
        for glob in globs {
            let bare = glob.strip_prefix('!').unwrap_or(glob);
            if let Some(problem) = path_problem(bare).filter(|_| bare != ".") {
                return Err(Error::Path { step: step.name.clone(), key, path: glob.clone(), problem });
            }
            if let Some(problem) = glob_error(bare) {
                return Err(Error::Glob { step: step.name.clone(), key, glob: glob.clone(), problem });
            }
        }
    }
    if step.outputs.is_empty()
        && let Some(report) = step.reports.iter().find(|report| *report != PRINTED)
    {
        return Err(Error::Reports { step: step.name.clone(), report: report.clone() });
    }
    if step.retries > 0 && step.reports.is_empty() {
        return Err(Error::Retries { step: step.name.clone() });
    }
    if step.shards_auto && step.reports.is_empty() {
        return Err(Error::AutoShards { step: step.name.clone() });
    }
    if (step.shards > 1 || step.shards_auto) && !divides(step) {
        return Err(Error::Shards { step: step.name.clone() });
    }
    caches::check(step)?;
    check_variables(step)
}

/// Whether the command of a step does something else in each shard: its runner does, or it uses the variables.
fn divides(step: &Step) -> bool {
    let texts = step.files.values().chain(step.env.values()).chain([&step.run]);
    let mut texts = texts.flat_map(|text| ["KILN_SHARD", "TEST_SHARD_INDEX"].map(|name| text.contains(name)));
    kiln_runners::Tool::of(&step.run).is_some() || texts.any(|uses| uses)
}

/// Checks that a step's variables and secrets can be set together.
pub(super) fn check_variables(step: &Step) -> Result<(), Error> {
    for name in step.env.keys() {
        let problem = if name.is_empty() || name.contains(['=', '\0']) {
            "which cannot name a variable"
        } else if name.starts_with("KILN_") {
            "but variables that start with `KILN_` are the farm's own"
        } else {
            continue;
        };
        return Err(Error::Variable { step: step.name.clone(), name: name.clone(), problem });
    }
    check_secrets(step)
}

fn check_secrets(step: &Step) -> Result<(), Error> {
    for (index, name) in step.secrets.iter().enumerate() {
        let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let problem = if !name.starts_with(is_letter) || !name.chars().all(|c| is_letter(c) || c.is_ascii_digit()) {
            "which cannot name a variable: expected letters, digits and `_`, no digit first"
        } else if name.starts_with("KILN_") {
            "but variables that start with `KILN_` are the farm's own"
        } else if step.env.contains_key(name) {
            "which it also has in `env`: leave one out"
        } else if step.secrets.iter().take(index).any(|before| before == name) {
            "twice: name it once"
        } else {
            continue;
        };
        return Err(Error::Secret { step: step.name.clone(), name: name.clone(), problem });
    }
    Ok(())
}

/// Normalises outputs that contain `..`. Outputs are relative to the root of the tree; one that would leave it is taken
/// as relative to the step's working directory.
pub(super) fn plain_outputs(step: &mut Step) {
    let directory = step.working_directory.clone().unwrap_or_default();
    for output in step.outputs.iter_mut().filter(|output| output.split('/').any(|part| part == "..")) {
        if let Some(plain) = resolved("", output).or_else(|| resolved(&directory, output)) {
            *output = plain;
        }
    }
}

fn resolved(base: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if path.starts_with('/') {
        return None;
    }
    for part in base.split('/').chain(path.split('/')).filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

fn sort(steps: Vec<Step>) -> Result<Vec<Step>, Error> {
    let mut left: Vec<Step> = steps;
    let mut sorted: Vec<Step> = Vec::with_capacity(left.len());
    let mut done: BTreeSet<String> = BTreeSet::new();
    while !left.is_empty() {
        let Some(next) = left.iter().position(|s| s.needs.iter().all(|n| done.contains(n))) else {
            return Err(Error::Cycle { steps: find_cycle(&left, &done) });
        };
        let step = left.remove(next);
        done.insert(step.name.clone());
        sorted.push(step);
    }
    Ok(sorted)
}

/// Follows unmet needs until a step repeats.
fn find_cycle(left: &[Step], done: &BTreeSet<String>) -> Vec<String> {
    let mut way: Vec<String> = left.first().map(|s| s.name.clone()).into_iter().collect();
    loop {
        let here = way.last().and_then(|name| left.iter().find(|s| s.name == *name));
        let Some(next) = here.and_then(|s| s.needs.iter().find(|n| !done.contains(*n))) else {
            return way;
        };
        if let Some(start) = way.iter().position(|n| n == next) {
            return way.split_off(start);
        }
        way.push(next.clone());
    }
}

fn cycle_words(steps: &[String]) -> String {
    let mut words: Vec<String> = steps.iter().map(|s| format!("`{s}`")).collect();
    words.extend(words.first().cloned());
    words.join(" needs ")
}

fn check_outputs(sorted: &[Step], artifacts: &[Artifact]) -> Result<(), Error> {
    let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for step in sorted {
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for need in &step.needs {
            known.insert(need);
            known.extend(before.get(need.as_str()).into_iter().flatten());
        }
        before.insert(&step.name, known);
    }
    let outputs = |step: &'_ Step| step.outputs.iter().map(|o| o.trim_end_matches('/').to_owned()).collect::<Vec<_>>();
    for (at, step) in sorted.iter().enumerate() {
        let own = outputs(step);
        for (index, output) in own.iter().enumerate() {
            if own.iter().skip(index).skip(1).any(|other| overlap(output, other)) {
                return Err(Error::RepeatedOutput { step: step.name.clone(), path: output.clone() });
            }
        }
        let is_apart =
            |other: &&Step| before.get(step.name.as_str()).is_none_or(|before| !before.contains(other.name.as_str()));
        for other in sorted.iter().take(at).filter(is_apart) {
            let theirs = outputs(other);
            let Some(path) = own.iter().find(|mine| theirs.iter().any(|their| overlap(mine, their))) else { continue };
            if meet(&other.name, &step.name, &before, artifacts) {
                return Err(Error::SharedOutput {
                    first: other.name.clone(),
                    second: step.name.clone(),
                    path: path.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Whether the outputs of two steps may be in one tree: a step or an artifact takes both, or nothing takes one of them.
fn meet(one: &str, other: &str, before: &BTreeMap<&str, BTreeSet<&str>>, artifacts: &[Artifact]) -> bool {
    let takers = |step: &str| -> BTreeSet<(bool, String)> {
        let steps =
            before.iter().filter(|(_, needs)| needs.contains(step)).map(|(name, _)| (false, (*name).to_owned()));
        let artifacts = artifacts.iter().filter(|artifact| artifact.from.iter().any(|from| from == step));
        steps.chain(artifacts.map(|artifact| (true, artifact.name.clone()))).collect()
    };
    let (one, other) = (takers(one), takers(other));
    one.is_empty() || other.is_empty() || !one.is_disjoint(&other)
}

/// Whether one path equals the other or is a directory above it.
fn overlap(a: &str, b: &str) -> bool {
    let under =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    under(a, b) || under(b, a)
}

fn check_artifact(artifact: &Artifact, steps: &[Step]) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !artifact.name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !artifact.name.chars().all(allowed) {
        return Err(Error::ArtifactName { name: artifact.name.clone() });
    }
    let mut outputs: Vec<&str> = Vec::new();
    for from in &artifact.from {
        let Some(step) = steps.iter().find(|s| s.name == *from) else {
            let hint = words::hint(from, steps.iter().map(|s| s.name.as_str()));
            return Err(Error::UnknownFrom { artifact: artifact.name.clone(), from: from.clone(), hint });
        };
        outputs.extend(step.outputs.iter().map(|o| o.trim_end_matches('/')));
    }
    for file in &artifact.files {
        let literal = literal_part(&file.path);
        if !outputs.iter().any(|output| literal.is_empty() || overlap(literal, output)) {
            return Err(Error::NoOutput {
                artifact: artifact.name.clone(),
                path: file.path.clone(),
                from: words::list(artifact.from.iter().map(String::as_str)),
                outputs: words::list(outputs),
            });
        }
        let place = file.dest.as_deref().filter(|dest| *dest != ".").unwrap_or(literal);
        // Only in an image may a destination be absolute.
        let place = match artifact.kind {
            ArtifactKind::Image(_) => place.strip_prefix('/').unwrap_or(place),
            _ => place,
        };
        if let Some(problem) = path_problem(place).filter(|_| !place.is_empty()) {
            return Err(Error::Destination { artifact: artifact.name.clone(), path: place.to_owned(), problem });
        }
    }
    Ok(())
}

/// A glob's directories before its first wildcard; the whole path if it has none.
fn literal_part(glob: &str) -> &str {
    let glob = glob.trim_end_matches('/');
    match glob.find(['*', '?', '[', '{']) {
        None => glob,
        Some(wild) => glob.split_at(wild).0.rsplit_once('/').map_or("", |(above, _)| above),
    }
}
