//! `kiln gate`: the checks that a farm makes of artifacts, on files of this machine. Needs no farm.

use std::path::{Path, PathBuf};

use kiln_gates::{Ignored, LicensePolicy, Scan, Verdict, VulnerabilityPolicy};
use kiln_proto::clock;
use kiln_terminal as terminal;
use serde_json::json;

use crate::args::gate::{Gate, Licenses, Severity, Unknown, Vulns};
use crate::{Code, Error, local};

pub(super) fn run(gate: Gate) -> Result<Code, Error> {
    match gate {
        Gate::Vulns(args) => vulns(&args),
        Gate::Licenses(args) => licenses(args),
        Gate::Size { path, max } => {
            let bytes = files(&path, &|_| true)?.iter().map(|(_, bytes)| bytes).sum();
            told(&kiln_gates::check_size(&path.to_string_lossy(), bytes, max))
        }
    }
}

/// Prints what a check found; it fails if the check does.
fn told(verdict: &Verdict) -> Result<Code, Error> {
    let code = if verdict.message().is_none() { Code::Success } else { Code::Failed };
    local::print(terminal::harmless(&verdict.text()).as_bytes())?;
    Ok(code)
}

fn vulns(args: &Vulns) -> Result<Code, Error> {
    let started = clock::now();
    let mut scan = Scan::new(&read(&args.sbom)?).map_err(|error| wrong(&args.sbom, &error))?;
    for (path, _) in files(&args.database, &|path| path.extension().is_some_and(|extension| extension == "json"))? {
        scan.entry(&path.to_string_lossy(), &read(&path)?);
    }
    let ignored = match &args.ignore {
        Some(path) => Ignored::read(&String::from_utf8_lossy(&read(path)?)),
        None => Ignored::default(),
    };
    if let Some(path) = &args.report {
        let scanner = scan.scanner(env!("CARGO_PKG_VERSION"), &args.database.to_string_lossy());
        let times =
            json!({ "scanStartedOn": clock::rfc3339(&started), "scanFinishedOn": clock::rfc3339(&clock::now()) });
        let report = json!({ "scanner": scanner, "metadata": times }).to_string();
        std::fs::write(path, report).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    let fail_on = match args.fail_on {
        Severity::Any => None,
        Severity::Low => Some(kiln_gates::Severity::Low),
        Severity::Medium => Some(kiln_gates::Severity::Medium),
        Severity::High => Some(kiln_gates::Severity::High),
        Severity::Critical => Some(kiln_gates::Severity::Critical),
    };
    told(&scan.verdict(&VulnerabilityPolicy { fail_on, ignored, unknown_fails: args.unknown == Unknown::Fail }))
}

fn licenses(args: Licenses) -> Result<Code, Error> {
    let components = kiln_gates::components(&read(&args.sbom)?).map_err(|error| wrong(&args.sbom, &error))?;
    let policy = LicensePolicy {
        allow: args.allow,
        deny: args.deny,
        known: args.known.into_iter().collect(),
        unknown_fails: args.unknown == Unknown::Fail,
    };
    policy.validate().map_err(|error| Error::Usage(error.to_string()))?;
    told(&kiln_gates::check_licenses(&components, &policy))
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Usage(format!("`{}`: {error}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| wrong(path, &format!("cannot read it: {error}")))
}

/// The files at and below a path that are wanted, with their sizes in bytes, sorted. Links are not followed.
fn files(path: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<(PathBuf, u64)>, Error> {
    let failed = |error: std::io::Error| wrong(path, &format!("cannot read it: {error}"));
    let (mut found, mut open) = (Vec::new(), vec![path.to_owned()]);
    while let Some(next) = open.pop() {
        let data = std::fs::symlink_metadata(&next).map_err(failed)?;
        if data.is_dir() {
            for entry in std::fs::read_dir(&next).map_err(failed)? {
                open.push(entry.map_err(failed)?.path());
            }
        } else if data.is_file() && is_wanted(&next) {
            found.push((next, data.len()));
        }
    }
    found.sort();
    Ok(found)
}
