//! The gates of a plan: checked, and written as `kiln.toml`.

use super::gates::{self, Check, Command, Place, Predicate, Severity};
use kiln_units::{show_duration, show_size};

use super::print::{bare, cpus, key, line, map, quote, strings};
use super::{DEFAULT_MEMORY_BYTES, DEFAULT_MILLI_CPUS, Gate, Plan, check};
use crate::project::{GATE_PURPOSE, GATE_TIMEOUT};

/// Checks what the gates of a plan are for, and what their commands ask for.
pub(super) fn check(plan: &Plan) -> Result<(), check::Error> {
    gates::check(&plan.gates, &plan.artifacts)?;
    plan.gates.iter().filter_map(Gate::command).try_for_each(|command| check::check_variables(&command.step))
}

/// Writes a gate as it is in a `kiln.toml`.
pub(super) fn print(out: &mut String, gate: &Gate, exclude: &[String]) {
    line(out, format_args!("\n[gates.{}]", bare(&gate.name)));
    strings(out, "artifact", &gate.artifacts);
    match &gate.check {
        Check::Command(command) => print_command(out, command, exclude),
        Check::Vulnerabilities(scan) => {
            key(out, "use", "\"vulns\"");
            key(out, "database", &quote(&scan.database));
            if scan.fail_on != Severity::default() {
                key(out, "fail_on", &quote(scan.fail_on.name()));
            }
            if let Some(path) = &scan.ignore {
                key(out, "ignore", &quote(path));
            }
            print_unknown(out, scan.unknown_fails);
        }
        Check::Licenses(policy) => {
            key(out, "use", "\"licenses\"");
            strings(out, "allow", &policy.allow);
            strings(out, "deny", &policy.deny);
            map(out, "known", &policy.known);
            print_unknown(out, policy.unknown_fails);
        }
        Check::Size { max_bytes } => {
            key(out, "use", "\"size\"");
            key(out, "max", &quote(&show_size(*max_bytes)));
        }
    }
}

fn print_unknown(out: &mut String, fails: bool) {
    if !fails {
        key(out, "unknown", "\"warn\"");
    }
}

fn print_command(out: &mut String, command: &Command, exclude: &[String]) {
    let step = &command.step;
    match &command.place {
        Place::Beside => {}
        Place::Inside => key(out, "inside", "true"),
        Place::Started { port, ready } => {
            key(out, "start", "true");
            if let Some(port) = port {
                key(out, "port", &port.to_string());
            }
            if let Some(ready) = ready {
                key(out, "ready", &quote(ready));
            }
        }
    }
    if step.why != GATE_PURPOSE {
        key(out, "why", &quote(&step.why));
    }
    if command.words.is_empty() {
        key(out, "run", &quote(&step.run));
    } else {
        strings(out, "run", &command.words);
    }
    if command.predicate != Predicate::default() {
        key(out, "predicate", &quote(command.predicate.name()));
    }
    if let Some(report) = &command.report {
        key(out, "report", &quote(report));
    }
    // The planner appended the project's exclusions, and will do so again.
    let inputs = step.inputs.get(..step.inputs.len().saturating_sub(exclude.len())).unwrap_or_default();
    if inputs != ["!**"] {
        strings(out, "inputs", inputs);
    }
    map(out, "files", &step.files);
    map(out, "env", &step.env);
    strings(out, "secrets", &step.secrets);
    if step.network {
        key(out, "network", "true");
    }
    if !step.cache {
        key(out, "cache", "false");
    }
    if step.milli_cpus != DEFAULT_MILLI_CPUS {
        key(out, "cpus", &cpus(step.milli_cpus));
    }
    if step.memory_bytes != DEFAULT_MEMORY_BYTES {
        key(out, "memory", &quote(&show_size(step.memory_bytes)));
    }
    if let Some(timeout) = step.timeout.filter(|timeout| *timeout != GATE_TIMEOUT) {
        key(out, "timeout", &quote(&show_duration(timeout)));
    }
    if let Some(image) = &step.image {
        key(out, "image", &quote(image));
    }
    strings(out, "packages", &step.packages);
    strings(out, "tools", &step.tools);
    if let Some(platform) = step.platform {
        key(out, "platform", &quote(&platform.to_string()));
    }
}
