//! Gates: what an artifact must pass before it is stored.
//!
//! Invariant: a gate that passes [`check`] is for artifacts that exist and can be seen in the way that it asks for.

use std::collections::BTreeMap;

use crate::{Artifact, ArtifactKind, Step, glob_error, path_problem, words};

/// What begins the name under which a gate is shown beside the steps.
pub const SHOWN: &str = "gate:";

/// A check of a finished artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Its name, unique in the plan.
    pub name: String,
    /// The names of the artifacts that it is for; empty: every artifact.
    pub artifacts: Vec<String>,
    /// What is checked.
    pub check: Check,
}

/// What a gate checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Whether a command succeeds.
    Command(Box<Command>),
    /// Known vulnerabilities of what the artifact consists of.
    Vulnerabilities(Vulnerabilities),
    /// The licences of what the artifact consists of.
    Licenses(Licenses),
    /// Its size: the sum of its files, of an image the sum of its layers as they are downloaded, in bytes.
    Size {
        /// The most that it may have, in bytes.
        max_bytes: u64,
    },
}

/// A command that sees the artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its inputs, variables, limits and command line; `run` is for people if there are `words`.
    pub step: Step,
    /// The program and its arguments; empty: a shell runs the step's `run`.
    pub words: Vec<String>,
    /// Where it runs.
    pub place: Place,
    /// What its success is attested as.
    pub predicate: Predicate,
    /// What it writes: the predicate of [`Predicate::Vulnerabilities`], or results of tests.
    pub report: Option<String>,
}

/// Where a gate's command runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// Where a step would, with the artifact among its inputs.
    #[default]
    Beside,
    /// In the file system of the image, as its user.
    Inside,
    /// Beside the running image, whose ports it reaches over loopback.
    Started {
        /// The port that the image listens at when it is ready.
        port: Option<u16>,
        /// A command that succeeds when it is ready.
        ready: Option<String>,
    },
}

/// What a gate's success is attested as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Predicate {
    /// A result of tests.
    #[default]
    TestResult,
    /// A scan for vulnerabilities.
    Vulnerabilities,
}

impl Predicate {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::TestResult, Self::Vulnerabilities];

    /// The value in a `kiln.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TestResult => "test-result",
            Self::Vulnerabilities => "vuln",
        }
    }
}

/// A scan of an artifact's bill of materials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vulnerabilities {
    /// A directory of the source tree with OSV's entries, one JSON file each.
    pub database: String,
    /// The least severity that fails.
    pub fail_on: Severity,
    /// A file of the source tree with ids that do not count, one a line.
    pub ignore: Option<String>,
    /// Whether what cannot be judged fails.
    pub unknown_fails: bool,
}

/// How severe a vulnerability is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Severity {
    /// Also those of which no severity is known.
    Any,
    /// A CVSS score from 0.1.
    Low,
    /// From 4.0.
    Medium,
    /// From 7.0.
    #[default]
    High,
    /// From 9.0.
    Critical,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Any, Self::Low, Self::Medium, Self::High, Self::Critical];
    /// What is expected where one is read.
    pub const EXPECTED: &str = "`any`, `low`, `medium`, `high` or `critical`";

    /// The value in a `kiln.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Reads one.
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == text)
    }
}

/// A policy for licences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Licenses {
    /// The SPDX ids that are allowed; empty: all that are not denied.
    pub allow: Vec<String>,
    /// Those that are not.
    pub deny: Vec<String>,
    /// Licences of packages whose bill of materials has none, by name or package URL.
    pub known: BTreeMap<String, String>,
    /// Whether a package of unknown licence fails.
    pub unknown_fails: bool,
}

impl Gate {
    /// Whether it is for an artifact.
    pub fn is_for(&self, artifact: &str) -> bool {
        self.artifacts.is_empty() || self.artifacts.iter().any(|name| name == artifact)
    }

    /// Moves it to its project's directory, given what becomes of paths.
    pub fn move_to(&mut self, directory: &str, inside: &dyn Fn(&str) -> String) {
        match &mut self.check {
            Check::Command(command) => {
                let step = &mut command.step;
                for glob in step.inputs.iter_mut().filter(|glob| *glob != "!**") {
                    *glob = match glob.strip_prefix('!') {
                        Some(bare) => format!("!{}", inside(bare)),
                        None => inside(glob),
                    };
                }
                let files = std::mem::take(&mut step.files).into_iter();
                step.files = files.map(|(path, text)| (inside(&path), text)).collect();
                step.working_directory = Some(directory.to_owned());
                if let (Some(report), Place::Beside) = (&mut command.report, &command.place) {
                    *report = inside(report);
                }
            }
            Check::Vulnerabilities(scan) => {
                scan.database = inside(&scan.database);
                scan.ignore = scan.ignore.as_deref().map(inside);
            }
            Check::Licenses(_) | Check::Size { .. } => {}
        }
    }

    /// Whether it sees files of the sources.
    pub fn reads_sources(&self) -> bool {
        match &self.check {
            Check::Command(command) => {
                let step = &command.step;
                let in_project = |image: &String| image.starts_with("./");
                step.inputs.first().is_none_or(|glob| glob != "!**") || step.image.as_ref().is_some_and(in_project)
            }
            Check::Vulnerabilities(_) => true,
            Check::Licenses(_) | Check::Size { .. } => false,
        }
    }

    /// Its command, if it has one.
    pub fn command(&self) -> Option<&Command> {
        match &self.check {
            Check::Command(command) => Some(command),
            _ => None,
        }
    }

    /// The name under which it is shown beside the steps; with the artifact's where it is for several.
    pub fn shown(&self, artifact: &str, all: &[Artifact]) -> String {
        match all.iter().filter(|artifact| self.is_for(&artifact.name)).count() {
            0 | 1 => format!("{SHOWN}{}", self.name),
            _ => format!("{SHOWN}{}:{artifact}", self.name),
        }
    }
}

/// Why a gate cannot be part of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid gate name `{name}`: expected lower-case letters, digits, `-` and `_`")]
    Name { name: String },
    #[error("gate `{gate}` is for unknown artifact `{artifact}`: {hint}")]
    UnknownArtifact { gate: String, artifact: String, hint: String },
    #[error("gate `{gate}` has nothing to check: the project has no artifact; add one as `[artifacts.NAME]`")]
    NoArtifacts { gate: String },
    #[error(
        "gate `{gate}` has `{key} = true`, which is for images, and artifact `{artifact}` is of kind `{kind}`: name the images in `artifact`"
    )]
    NoImage { gate: String, key: &'static str, artifact: String, kind: &'static str },
    #[error("gate `{gate}` has `{path}` in `{key}`, which {problem}: expected a path relative to the project's root")]
    Path { gate: String, key: &'static str, path: String, problem: String },
}

/// Checks that gates are for artifacts of a plan that they can see.
///
/// # Errors
/// The first gate that is not.
pub fn check(gates: &[Gate], artifacts: &[Artifact]) -> Result<(), Error> {
    gates.iter().try_for_each(|gate| check_one(gate, artifacts))
}

fn check_one(gate: &Gate, artifacts: &[Artifact]) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if gate.name.is_empty() || !gate.name.chars().all(allowed) {
        return Err(Error::Name { name: gate.name.clone() });
    }
    let name = || gate.name.clone();
    for wanted in &gate.artifacts {
        if !artifacts.iter().any(|artifact| artifact.name == *wanted) {
            let hint = words::hint(wanted, artifacts.iter().map(|artifact| artifact.name.as_str()));
            return Err(Error::UnknownArtifact { gate: name(), artifact: wanted.clone(), hint });
        }
    }
    if artifacts.is_empty() {
        return Err(Error::NoArtifacts { gate: name() });
    }
    let key = match gate.command().map(|command| &command.place) {
        Some(Place::Inside) => Some("inside"),
        Some(Place::Started { .. }) => Some("start"),
        _ => None,
    };
    let is_image = |kind: &ArtifactKind| matches!(kind, ArtifactKind::Image(_) | ArtifactKind::Dockerfile(_));
    let other = artifacts.iter().find(|artifact| gate.is_for(&artifact.name) && !is_image(&artifact.kind));
    if let (Some(key), Some(artifact)) = (key, other) {
        let kind = artifact.kind.name();
        return Err(Error::NoImage { gate: name(), key, artifact: artifact.name.clone(), kind });
    }
    let wrong = paths(gate).into_iter().find_map(|(key, path)| {
        let bare = path.strip_prefix('!').unwrap_or(path);
        let problem = path_problem(bare).filter(|_| bare != ".").map(str::to_owned);
        let problem = problem.or_else(|| glob_error(bare).filter(|_| key == "inputs"));
        Some(Error::Path { gate: name(), key, path: path.to_owned(), problem: problem? })
    });
    wrong.map_or(Ok(()), Err)
}

/// The paths of the source tree that a gate names, with their keys.
fn paths(gate: &Gate) -> Vec<(&'static str, &str)> {
    match &gate.check {
        Check::Command(command) => {
            let inputs = command.step.inputs.iter().map(|path| ("inputs", path.as_str()));
            let report = command.report.iter().filter(|_| command.place == Place::Beside);
            let files = command.step.files.keys().map(|path| ("files", path.as_str()));
            inputs.chain(report.map(|path| ("report", path.as_str()))).chain(files).collect()
        }
        Check::Vulnerabilities(scan) => {
            let ignore = scan.ignore.iter().map(|path| ("ignore", path.as_str()));
            std::iter::once(("database", scan.database.as_str())).chain(ignore).collect()
        }
        Check::Licenses(_) | Check::Size { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str, kind: ArtifactKind) -> Artifact {
        let (from, files) = (Vec::new(), Vec::new());
        Artifact { name: name.into(), from, files, kind, check_elf: true, bundle_libraries: false }
    }

    fn gate(name: &str, artifacts: &[&str], place: Place) -> Gate {
        let artifacts = artifacts.iter().map(|name| (*name).to_owned()).collect();
        let step = Step::new(format!("{SHOWN}{name}"), "true");
        let (words, predicate) = (Vec::new(), Predicate::TestResult);
        let command = Command { step, words, place, predicate, report: None };
        Gate { name: name.into(), artifacts, check: Check::Command(Box::new(command)) }
    }

    #[test]
    fn a_gate_is_for_artifacts_that_exist_and_that_it_can_see() {
        let image = artifact("shop", ArtifactKind::Dockerfile(Box::default()));
        let all = [image.clone(), artifact("cli", ArtifactKind::Binary)];
        let words = |gate: Gate| check(&[gate], &all).map_err(|error| error.to_string());
        assert_eq!(words(gate("smoke", &["shop"], Place::Inside)), Ok(()));
        assert_eq!(words(gate("any", &[], Place::Beside)), Ok(()));
        let unknown = words(gate("smoke", &["shap"], Place::Beside)).unwrap_err();
        assert_eq!(unknown, "gate `smoke` is for unknown artifact `shap`: did you mean `shop`?");
        for (place, key) in [(Place::Inside, "inside"), (Place::Started { port: None, ready: None }, "start")] {
            let wrong = words(gate("smoke", &[], place)).unwrap_err();
            assert!(
                wrong.contains(&format!("`{key} = true`")) && wrong.contains("`cli` is of kind `binary`"),
                "{wrong}"
            );
        }
        assert!(words(gate("Smoke!", &[], Place::Beside)).unwrap_err().contains("invalid gate name"));
        assert!(check(&[gate("a", &[], Place::Beside)], &[]).unwrap_err().to_string().contains("no artifact"));
    }

    #[test]
    fn no_path_of_a_gate_leaves_the_project() {
        let all = [artifact("cli", ArtifactKind::Binary)];
        let scan = |database: &str, ignore: Option<&str>| {
            let (database, ignore) = (database.to_owned(), ignore.map(str::to_owned));
            let scan = Vulnerabilities { database, fail_on: Severity::High, ignore, unknown_fails: false };
            check(&[Gate { name: "vulns".into(), artifacts: Vec::new(), check: Check::Vulnerabilities(scan) }], &all)
        };
        assert_eq!(scan("security/osv", Some("security/ignored")), Ok(()));
        assert!(scan("../osv", None).unwrap_err().to_string().contains("`../osv` in `database`"));
        assert!(scan("osv", Some("/etc/passwd")).unwrap_err().to_string().contains("in `ignore`"));
    }

    #[test]
    fn a_gate_of_several_artifacts_is_shown_with_each() {
        let all = [artifact("a", ArtifactKind::Binary), artifact("b", ArtifactKind::Binary)];
        assert_eq!(gate("size", &["a"], Place::Beside).shown("a", &all), "gate:size");
        assert_eq!(gate("size", &[], Place::Beside).shown("b", &all), "gate:size:b");
    }
}
