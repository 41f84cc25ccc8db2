//! `kiln gate`: the checks of `[gates.NAME]` with `use`, by hand.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What is checked.
#[derive(Debug, Subcommand)]
pub enum Gate {
    /// Look up the packages of a bill of materials in a directory of OSV's entries.
    Vulns(Vulns),
    /// Compare the licences of a bill of materials with those that are allowed.
    Licenses(Licenses),
    /// Compare the size of a file or directory with the most that it may have.
    Size {
        /// The file or directory.
        path: PathBuf,
        /// The most that it may have, such as `100MB`.
        #[arg(long, value_name = "SIZE", value_parser = kiln_units::size)]
        max: u64,
    },
}

/// Arguments of `kiln gate vulns`.
#[derive(Debug, Args)]
pub struct Vulns {
    /// A CycloneDX document, such as `kiln build` writes to `kiln-out/NAME.cdx.json`.
    pub sbom: PathBuf,
    /// The directory of the database: OSV's entries, one JSON file each.
    #[arg(long, value_name = "DIR")]
    pub database: PathBuf,
    /// The least severity that fails.
    #[arg(long, value_enum, default_value = "high")]
    pub fail_on: Severity,
    /// A file of ids that do not count, one a line.
    #[arg(long, value_name = "FILE")]
    pub ignore: Option<PathBuf>,
    /// What becomes of what cannot be judged.
    #[arg(long, value_enum, default_value = "fail")]
    pub unknown: Unknown,
    /// Write what was found to this file, as in-toto's predicate for vulnerabilities.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Arguments of `kiln gate licenses`.
#[derive(Debug, Args)]
pub struct Licenses {
    /// A CycloneDX document, such as `kiln build` writes to `kiln-out/NAME.cdx.json`.
    pub sbom: PathBuf,
    /// An SPDX id that is allowed; repeatable. Without any, all that are not denied are.
    #[arg(long, value_name = "ID", required_unless_present = "deny")]
    pub allow: Vec<String>,
    /// An SPDX id that is not; repeatable.
    #[arg(long, value_name = "ID")]
    pub deny: Vec<String>,
    /// The licence of a package whose bill of materials has none, as `NAME=EXPRESSION`; repeatable.
    #[arg(long, value_name = "NAME=EXPRESSION", value_parser = pair)]
    pub known: Vec<(String, String)>,
    /// What becomes of what cannot be judged.
    #[arg(long, value_enum, default_value = "fail")]
    pub unknown: Unknown,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.rsplit_once('=').ok_or_else(|| format!("expected `NAME=EXPRESSION`, found `{text}`"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Severity {
    /// Also those of which no severity is known.
    Any,
    /// A CVSS score from 0.1.
    Low,
    /// From 4.0.
    Medium,
    /// From 7.0.
    High,
    /// From 9.0.
    Critical,
}

/// What becomes of what cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Unknown {
    /// It fails.
    Fail,
    /// It is only told of.
    Warn,
}
