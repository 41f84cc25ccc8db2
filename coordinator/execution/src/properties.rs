//! Translates platform properties of other farms' clients: a rule turns each into one of this farm's own or ignores it.
//!
//! The farm's own rules (`--properties FILE`) come first, then built-in ones for what clients of other farms usually
//! send. Properties without a rule are kept, and refused if the farm does not know them.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_proto::property;
use serde::Deserialize;

/// Translation rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Whether to ignore unknown properties without a rule instead of refusing the action.
    #[serde(default)]
    ignore_unknown: bool,
    /// Tried in order; the first match applies.
    #[serde(default, rename = "property")]
    own: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The property's name; a trailing `*` matches any name with this prefix.
    name: String,
    /// If set, the rule only applies to this value.
    value: Option<String>,
    #[serde(default)]
    ignore: bool,
    /// The farm's property that it becomes.
    to: Option<String>,
    /// How values are translated; others are kept.
    #[serde(default)]
    values: BTreeMap<String, String>,
}

/// What a property means to this farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// One of the farm's own properties, possibly the same.
    Is(String, String),
    /// A resource estimate that was made for other machines: less may be enough.
    Estimate(String, String),
    /// Nothing.
    Ignored,
}

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
#[error("cannot use the property rules in `{path}`: {reason}")]
pub struct Error {
    path: String,
    reason: String,
}

impl Rules {
    /// Reads a file of rules.
    ///
    /// # Errors
    /// If it cannot be read, or a rule has neither or both of `ignore` and `to`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let rules: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        for rule in &rules.own {
            if rule.ignore == rule.to.is_some() {
                return Err(wrong(format!("the rule for `{}` needs either `ignore = true` or `to`", rule.name)));
            }
            if let Some(to) = rule.to.as_ref().filter(|to| !property::is_known(to)) {
                return Err(wrong(format!("the rule for `{}` names the unknown property `{to}`", rule.name)));
            }
        }
        Ok(rules)
    }

    /// What an action's property means.
    pub fn meaning(&self, name: &str, value: &str) -> Meaning {
        if let Some(rule) = self.own.iter().find(|rule| rule.fits(name, value)) {
            return match &rule.to {
                Some(to) => {
                    Meaning::Is(to.clone(), rule.values.get(value).cloned().unwrap_or_else(|| value.to_owned()))
                }
                None => Meaning::Ignored,
            };
        }
        match built_in(name, value) {
            Some(meaning) => meaning,
            None if self.ignore_unknown && !is_ours(name) => Meaning::Ignored,
            None => Meaning::Is(name.to_owned(), value.to_owned()),
        }
    }
}

impl Rule {
    fn fits(&self, name: &str, value: &str) -> bool {
        let named = match self.name.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.name,
        };
        named && self.value.as_ref().is_none_or(|wanted| wanted == value)
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("kiln.") || property::is_known(name)
}

/// Properties with which other farms place or limit actions in ways that this farm does not have or decides itself.
/// Names are compared without case, `-` and `_`.
const IGNORED: &[&str] = &[
    "cachesilokey",
    "containerregistrypassword",
    "containerregistryusername",
    "cpumodel",
    "cpuvendor",
    "dockeraddcapabilities",
    "dockerdropcapabilities",
    "dockerenablenestedvirt",
    "dockerinit",
    "dockerprivileged",
    "dockerreuse",
    "dockerrunasroot",
    "dockerruntime",
    "dockershmsize",
    "dockersiblingcontainers",
    "dockerulimits",
    "dockeruser",
    "dockeruseurandom",
    "estimatedfreediskbytes",
    "gcemachinetype",
    "hostedbazelaffinitykey",
    "kernelversion",
    "maxcores",
    "maxmem",
    "nonrootworkspace",
    "persistentworkerkey",
    "persistentworkerprotocol",
    "persistentworkers",
    "pool",
    "preserveworkspace",
    "queue",
    "recyclerunner",
    "runnerrecyclingkey",
    "runnerrecyclingmaxwait",
    "useselfhostedexecutors",
    "workerpool",
    "workloadisolationtype",
];

fn built_in(name: &str, value: &str) -> Option<Meaning> {
    if name.starts_with("kiln.") {
        return None;
    }
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_ascii_lowercase();
    let is = |name: &str, value: String| Some(Meaning::Is(name.to_owned(), value));
    let estimate = |name: &str, value: Option<String>| {
        Some(value.map_or(Meaning::Ignored, |value| Meaning::Estimate(name.to_owned(), value)))
    };
    match plain.as_str() {
        "osfamily" | "os" => is(property::OS_FAMILY, value.to_ascii_lowercase()),
        "isa" | "arch" | "cpuarch" | "architecture" => is(property::ISA, isa(value)),
        "containerimage" | "dockerimage" if matches!(value, "" | "none") => Some(Meaning::Ignored),
        "dockerimage" => is(property::CONTAINER_IMAGE, value.to_owned()),
        "dockernetwork" | "network" => {
            let off = matches!(value.to_ascii_lowercase().as_str(), "off" | "none" | "");
            is(property::NETWORK, if off { "off" } else { "on" }.to_owned())
        }
        "cpucount" | "mincores" | "estimatedcpu" | "estimatedcomputeunits" => estimate(property::CPUS, cpus(value)),
        "memorykb" => estimate(property::MEMORY, bytes(value, 1 << 10)),
        "minmem" => estimate(property::MEMORY, bytes(value, 1 << 20)),
        "estimatedmemory" => estimate(property::MEMORY, bytes(value, 1)),
        other => IGNORED.contains(&other).then_some(Meaning::Ignored),
    }
}

/// An architecture in REAPI's notation; unknown ones are kept.
fn isa(value: &str) -> String {
    let known = match value.to_ascii_lowercase().as_str() {
        "x86-64" | "x86_64" | "amd64" | "x64" | "k8" => "x86-64",
        "arm-a64" | "arm64" | "aarch64" | "armv8" => "arm-a64",
        _ => value,
    };
    known.to_owned()
}

/// Parses `2`, `0.5` or `500m`.
fn cpus(value: &str) -> Option<String> {
    let number: f64 = match value.strip_suffix('m') {
        Some(milli) => milli.parse::<f64>().ok()? / 1000.0,
        None => value.parse().ok()?,
    };
    (number > 0.0 && number <= 4096.0).then(|| number.to_string())
}

/// Parses a number of bytes, in `unit` unless the value has its own unit.
fn bytes(value: &str, unit: u64) -> Option<String> {
    let bytes = match value.parse::<u64>() {
        Ok(number) => number.checked_mul(unit)?,
        Err(_) => kiln_units::size(value).ok()?,
    };
    (bytes > 0).then(|| bytes.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(name: &str, value: &str) -> Meaning {
        Meaning::Is(name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_other_farms_clients_send_is_mapped_or_ignored() {
        let rules = Rules::default();
        for (name, value, meaning) in [
            ("OSFamily", "Linux", is("OSFamily", "linux")),
            ("OSFamily", "linux", is("OSFamily", "linux")),
            ("Arch", "amd64", is("ISA", "x86-64")),
            ("cpu_arch", "aarch64", is("ISA", "arm-a64")),
            ("ISA", "x86-64", is("ISA", "x86-64")),
            ("dockerNetwork", "standard", is("kiln.network", "on")),
            ("dockerNetwork", "off", is("kiln.network", "off")),
            ("cpu_count", "4", Meaning::Estimate("kiln.cpus".into(), "4".into())),
            ("EstimatedCPU", "500m", Meaning::Estimate("kiln.cpus".into(), "0.5".into())),
            ("memory_kb", "1024", Meaning::Estimate("kiln.memory".into(), "1048576".into())),
            ("EstimatedMemory", "2GB", Meaning::Estimate("kiln.memory".into(), "2000000000".into())),
            ("Pool", "default", Meaning::Ignored),
            ("workload-isolation-type", "oci", Meaning::Ignored),
            ("container-image", "none", Meaning::Ignored),
            ("gpu", "a100", is("gpu", "a100")),
            ("kiln.cpus", "2", is("kiln.cpus", "2")),
        ] {
            assert_eq!(rules.meaning(name, value), meaning, "{name}={value}");
        }
    }

    #[test]
    fn the_farms_own_rules_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("properties.toml");
        let text = r#"
            ignore_unknown = true
            [[property]]
            name = "Pool"
            value = "gpu"
            to = "kiln.label.gpu"
            values = { gpu = "on" }
            [[property]]
            name = "acme-*"
            ignore = true
        "#;
        std::fs::write(&path, text).unwrap();
        let rules = Rules::read(&path).unwrap();
        assert_eq!(rules.meaning("Pool", "gpu"), is("kiln.label.gpu", "on"));
        assert_eq!(rules.meaning("Pool", "default"), Meaning::Ignored);
        assert_eq!(rules.meaning("acme-region", "eu"), Meaning::Ignored);
        assert_eq!(rules.meaning("whatever", "1"), Meaning::Ignored);
        assert_eq!(rules.meaning("kiln.typo", "1"), is("kiln.typo", "1"), "expected the farm's own to be refused");
        for (text, word) in [
            ("[[property]]\nname = \"a\"", "needs either"),
            ("[[property]]\nname = \"a\"\nto = \"b\"", "unknown property `b`"),
            ("[[properties]]", "properties"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Rules::read(&path).unwrap_err().to_string();
            assert!(error.contains(word), "expected `{word}` in: {error}");
        }
    }
}
