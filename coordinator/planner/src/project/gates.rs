//! `[gates.NAME]`: what an artifact must pass before it is stored.

use std::time::Duration;

use kiln_plan::Step;
use kiln_plan::gates::{Check, Command, Gate, Licenses, Place, Predicate, SHOWN, Severity, Vulnerabilities};

use super::parse::set_keys;
use super::reader::Reader;
use super::{Error, units};

/// How long a gate's command may take unless the file says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Its purpose unless the file says one.
pub(crate) const PURPOSE: &str = "a gate of the artifact";

const COMMON: &[&str] = &["artifact", "use"];
const COMMAND: &[&str] = &[
    "inside",
    "start",
    "port",
    "ready",
    "run",
    "predicate",
    "report",
    "why",
    "inputs",
    "files",
    "env",
    "secrets",
    "network",
    "cpus",
    "memory",
    "timeout",
    "cache",
    "image",
    "packages",
    "tools",
    "platform",
];
/// What the image itself decides for a gate inside it.
const OUTSIDE: &[&str] = &["image", "packages", "tools", "platform"];
/// What only a running image has.
const STARTED: &[&str] = &["port", "ready"];
const VULNERABILITIES: &[&str] = &["database", "fail_on", "ignore", "unknown"];
const LICENSES: &[&str] = &["allow", "deny", "known", "unknown"];
const SIZE: &[&str] = &["max"];
const CHECKS: &str = "`vulns`, `licenses` or `size`; a gate without `use` has a `run`";

/// Reads one.
pub(super) fn gate(name: String, table: &Reader<'_>) -> Result<Gate, Error> {
    let known = |keys: &[&'static str]| table.only(&[COMMON, keys].concat());
    let check = match table.string("use")?.as_deref() {
        None => {
            table.none_of(&[VULNERABILITIES, LICENSES, SIZE].concat(), "it is for a gate with `use`")?;
            known(COMMAND)?;
            Check::Command(Box::new(command(&name, table)?))
        }
        Some("vulns") => known(VULNERABILITIES).and_then(|()| vulnerabilities(table))?,
        Some("licenses") => known(LICENSES).and_then(|()| licenses(table))?,
        Some("size") => known(SIZE).and_then(|()| size(table))?,
        Some(other) => return Err(table.bad("use", other, CHECKS)),
    };
    Ok(Gate { name, artifacts: table.strings("artifact")?, check })
}

fn command(name: &str, table: &Reader<'_>) -> Result<Command, Error> {
    let place = place(table)?;
    let mut step = Step::new(format!("{SHOWN}{name}"), String::new());
    // Without a choice it sees the artifact alone, so that an edit of the sources repeats nothing.
    step.inputs = vec!["!**".to_owned()];
    step.timeout = Some(TIMEOUT);
    let mut words = Vec::new();
    if !table.has("run") {
        return Err(table.missing("run"));
    }
    if place == Place::Beside || table.is_string("run") {
        set_keys(&mut step, table)?;
    } else {
        words = table.strings("run")?;
        if words.first().is_none_or(String::is_empty) {
            return Err(table.bad("run", words.join(" "), "a command, or a program and its arguments"));
        }
        set_keys(&mut step, &table.without("run"))?;
        step.run = words.join(" ");
    }
    if step.why.is_empty() {
        step.why = PURPOSE.to_owned();
    }
    let predicate = match table.string("predicate")? {
        None => Predicate::default(),
        Some(text) => {
            let found = Predicate::ALL.into_iter().find(|predicate| predicate.name() == text);
            found.ok_or_else(|| table.bad("predicate", &text, "`test-result` or `vuln`"))?
        }
    };
    let report = table.string("report")?;
    if step.memory_auto {
        return Err(table.bad("memory", units::AUTO, units::SIZE));
    }
    if let Some(report) = report.as_deref().filter(|_| predicate == Predicate::TestResult && place != Place::Beside) {
        return Err(table.bad(
            "report",
            report,
            "none, because results of tests are read of a command beside the artifact",
        ));
    }
    if predicate == Predicate::Vulnerabilities && report.is_none() {
        return Err(table.missing("report"));
    }
    Ok(Command { step, words, place, predicate, report })
}

fn place(table: &Reader<'_>) -> Result<Place, Error> {
    let (inside, start) = (table.bool("inside")?.unwrap_or(false), table.bool("start")?.unwrap_or(false));
    if !start {
        table.none_of(STARTED, "it is for a gate with `start = true`")?;
    }
    match (inside, start) {
        (true, true) => {
            Err(table.bad("start", true, "either `inside` or `start`: what starts the image runs beside it"))
        }
        (true, false) => {
            table.none_of(OUTSIDE, "a gate with `inside = true` runs in the artifact's own file system")?;
            Ok(Place::Inside)
        }
        (false, true) => {
            table.none_of(&["tools", "platform"], "the command runs where the image does, in the gate's `image`")?;
            let port = match table.integer("port")? {
                None => None,
                Some(number) => {
                    let port = u16::try_from(number).ok().filter(|port| *port > 0);
                    Some(port.ok_or_else(|| table.bad("port", number, "a port from 1 to 65535"))?)
                }
            };
            let ready = table.string("ready")?;
            if port.is_none() && ready.is_none() {
                return Err(table.missing("port"));
            }
            Ok(Place::Started { port, ready })
        }
        (false, false) => Ok(Place::Beside),
    }
}

/// Whether what cannot be judged fails.
fn unknown_fails(table: &Reader<'_>) -> Result<bool, Error> {
    match table.string("unknown")?.as_deref() {
        None | Some("fail") => Ok(true),
        Some("warn") => Ok(false),
        Some(other) => Err(table.bad("unknown", other, "`fail` or `warn`")),
    }
}

fn vulnerabilities(table: &Reader<'_>) -> Result<Check, Error> {
    let fail_on = match table.string("fail_on")? {
        None => Severity::default(),
        Some(text) => Severity::read(&text).ok_or_else(|| table.bad("fail_on", &text, Severity::EXPECTED))?,
    };
    Ok(Check::Vulnerabilities(Vulnerabilities {
        database: table.required_string("database")?.trim_end_matches('/').to_owned(),
        fail_on,
        ignore: table.string("ignore")?,
        unknown_fails: unknown_fails(table)?,
    }))
}

fn licenses(table: &Reader<'_>) -> Result<Check, Error> {
    let (allow, deny) = (table.strings("allow")?, table.strings("deny")?);
    if allow.is_empty() && deny.is_empty() {
        return Err(table.missing("allow"));
    }
    let known = table.string_map("known")?;
    Ok(Check::Licenses(Licenses { allow, deny, known, unknown_fails: unknown_fails(table)? }))
}

fn size(table: &Reader<'_>) -> Result<Check, Error> {
    let text = table.required_string("max")?;
    let max_bytes = units::read_size(&text).ok_or_else(|| table.bad("max", &text, units::SIZE))?;
    Ok(Check::Size { max_bytes })
}
