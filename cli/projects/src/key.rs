//! What a project's build depends on, so far as it is known before it runs: its plan and its steps' inputs.
//!
//! Invariant: a key depends neither on where the project is on this machine, nor on the commit's name and time.

use std::collections::{BTreeMap, BTreeSet};

use kiln_planner::plan::gates::Check;
use kiln_planner::plan::{ArtifactKind, Plan, Step, below, input_files};
use kiln_proto::digest::{Digest, DigestFunction};

use crate::Project;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// The key of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What of the plan is not about one step.
    plan: Digest,
    /// What each step is, without its inputs.
    steps: BTreeMap<String, Digest>,
    /// The inputs of each step, and those of artifacts that no step makes under the empty name.
    inputs: BTreeMap<String, BTreeSet<String>>,
    /// The contents of all inputs.
    files: BTreeMap<String, Digest>,
}

/// How two keys differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The steps that would run again by themselves, in the order of their names.
    pub steps: Vec<String>,
    /// The inputs that differ, relative to the root of the tree.
    pub files: Vec<String>,
    /// Whether the targets or artifacts differ.
    pub plan: bool,
}

impl Key {
    /// The key of a project with a plan.
    pub fn of(project: &Project, plan: &Plan) -> Self {
        // The root of the tree may be elsewhere at another commit; a path of the project's own stays what it is.
        let of_step = |step: &Step| FUNCTION.digest(format!("{step:?}").as_bytes());
        let names = |step: &Step| -> BTreeSet<String> {
            input_files(step, &project.paths).into_iter().filter_map(|at| project.paths.get(at).cloned()).collect()
        };
        let mut inputs: BTreeMap<String, BTreeSet<String>> =
            plan.steps.iter().map(|step| (step.name.clone(), names(step))).collect();
        let copies = |kind: &ArtifactKind| matches!(kind, ArtifactKind::Dockerfile(_));
        if plan.artifacts.iter().any(|artifact| copies(&artifact.kind)) {
            inputs.insert(String::new(), project.paths.iter().cloned().collect());
        }
        // What gates read is part of nothing else.
        let of_gates = gate_inputs(project, plan);
        if !of_gates.is_empty() {
            inputs.entry(String::new()).or_default().extend(of_gates);
        }
        let files: BTreeSet<&String> = inputs.values().flatten().collect();
        let files = files.into_iter().map(|path| (path.clone(), content(project, path))).collect();
        let rest = format!("{:?}{:?}{:?}", plan.targets, plan.artifacts, plan.gates);
        Self {
            plan: FUNCTION.digest(rest.as_bytes()),
            steps: plan.steps.iter().map(|step| (step.name.clone(), of_step(step))).collect(),
            inputs,
            files,
        }
    }

    /// What differs from an earlier key; `None` if nothing does.
    pub fn since(&self, before: &Self) -> Option<Change> {
        if self == before {
            return None;
        }
        let paths: BTreeSet<&String> = self.files.keys().chain(before.files.keys()).collect();
        let files: BTreeSet<&String> =
            paths.into_iter().filter(|path| self.files.get(*path) != before.files.get(*path)).collect();
        let none = BTreeSet::new();
        let reads = |key: &Self, step: &str| {
            !key.inputs.get(step).unwrap_or(&none).is_disjoint(&files.iter().map(|path| (*path).clone()).collect())
        };
        let names: BTreeSet<&String> = self.steps.keys().chain(before.steps.keys()).collect();
        let differs =
            |name: &str| self.steps.get(name) != before.steps.get(name) || reads(self, name) || reads(before, name);
        Some(Change {
            steps: names.into_iter().filter(|name| differs(name)).cloned().collect(),
            plan: self.plan != before.plan,
            files: files.into_iter().cloned().collect(),
        })
    }
}

/// The files of the sources that gates read.
fn gate_inputs(project: &Project, plan: &Plan) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for gate in &plan.gates {
        match &gate.check {
            Check::Command(command) => {
                found.extend(
                    input_files(&command.step, &project.paths)
                        .into_iter()
                        .filter_map(|at| project.paths.get(at).cloned()),
                );
            }
            Check::Vulnerabilities(scan) => {
                let is_read =
                    |path: &&String| below(path, &scan.database).is_some() || scan.ignore.as_ref() == Some(*path);
                found.extend(project.paths.iter().filter(is_read).cloned());
            }
            Check::Licenses(_) | Check::Size { .. } => {}
        }
    }
    found
}

/// What a path is: a link's target, or whether a file is executable and what is in it. A file that cannot be read is like no other.
fn content(project: &Project, path: &str) -> Digest {
    let file = project.root.join(path);
    if let Ok(target) = std::fs::read_link(&file) {
        return FUNCTION.digest(format!("link {}", target.display()).as_bytes());
    }
    let content = std::fs::read(&file).map(|data| FUNCTION.digest(&data).hex()).unwrap_or_default();
    FUNCTION.digest(format!("{} {content}", if is_executable(&file) { "program" } else { "file" }).as_bytes())
}

#[cfg(unix)]
fn is_executable(file: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.permissions().mode() & 0o100 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &std::path::Path) -> bool {
    false
}
