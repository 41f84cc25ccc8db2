//! The load generator: runs load cases against any Remote Execution endpoint, and reports the results.
//!
//! Invariant: an endpoint that refuses a case, or fails during it, does not affect the run or other cases.

pub mod action_cache;
pub mod case;
pub mod compare;
pub mod document;
pub mod download;
pub mod endpoint;
pub mod execute;
pub mod files;
pub mod find_missing;
pub mod many;
pub mod random;
pub mod sizes;
pub mod table;
pub mod tally;
pub mod target;
pub mod upload;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::process::Process;
use case::{Limits, Load, drive};
use document::{Case, Document, Machine};
use endpoint::Endpoint;
use target::Target;

/// `kiln-bench load`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where the load goes.
    #[command(flatten)]
    pub target: target::Options,
    /// Time under load per case, such as `10s`, `500ms` or `2m`, not counting the time to make data and check answers.
    #[arg(long, default_value = "5s", value_parser = duration, conflicts_with = "count")]
    pub duration: Duration,
    /// Operations per case, instead of a time.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Number of concurrent callers. The largest blobs have fewer, as the report shows.
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Connections that the callers share.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Write the report as JSON to this file; `-` is standard output, and the table then goes to standard error.
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Cases to run, by name or prefix, such as `upload,execute-noop`; default: all.
    #[arg(long, value_delimiter = ',', value_name = "CASE[,CASE]")]
    pub only: Vec<String>,
    /// Seed of the random data; default: random. An endpoint that has seen a seed has its blobs.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// A case, independent of the types of its calls and answers.
trait Runnable {
    fn name(&self) -> String;
    fn run(self: Box<Self>, to: &Endpoint, limits: Limits, server: Option<Process>) -> BoxFuture<'_, Case>;
}

impl<L: Load> Runnable for L {
    fn name(&self) -> String {
        Load::name(self)
    }

    fn run(self: Box<Self>, to: &Endpoint, limits: Limits, server: Option<Process>) -> BoxFuture<'_, Case> {
        drive(*self, to, limits, server).boxed()
    }
}

/// All cases, in the order in which they run.
fn cases(concurrency: usize, calls: Option<u64>) -> Vec<Box<dyn Runnable>> {
    let mut cases: Vec<Box<dyn Runnable>> = Vec::new();
    cases.extend(sizes::CLASSES.map(|class| Box::new(upload::Upload::new(class)) as Box<dyn Runnable>));
    cases.extend(sizes::CLASSES.map(|class| Box::new(download::Download::new(class, calls)) as Box<dyn Runnable>));
    cases.push(Box::new(files::UploadFiles));
    cases.push(Box::<files::DownloadFile>::default());
    cases.push(Box::new(many::ReadMany::new(concurrency)));
    cases.extend(
        find_missing::BATCHES.map(|digests| Box::new(find_missing::FindMissing::new(digests)) as Box<dyn Runnable>),
    );
    cases.push(Box::new(action_cache::Hits::default()));
    for kind in [execute::Kind::Noop, execute::Kind::Inputs, execute::Kind::Outputs] {
        cases.push(Box::new(execute::Execute::new(kind)));
    }
    cases
}

/// The requested cases, by name or prefix.
fn chosen(cases: Vec<Box<dyn Runnable>>, only: &[String]) -> anyhow::Result<Vec<Box<dyn Runnable>>> {
    let fits =
        |name: &str, word: &str| name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if let Some(word) = only.iter().find(|word| !cases.iter().any(|case| fits(&case.name(), word))) {
        let names: Vec<String> = cases.iter().map(|case| format!("`{}`", case.name())).collect();
        bail!("unknown case `{word}`; expected one of {}", names.join(", "));
    }
    let wanted = |name: String| only.is_empty() || only.iter().any(|word| fits(&name, word));
    Ok(cases.into_iter().filter(|case| wanted(case.name())).collect())
}

/// Runs the cases, prints the table and writes the JSON report.
///
/// # Errors
/// If there is no endpoint or no such case. Failures within a case are in the report.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let concurrency = usize::from(options.concurrency);
    let cases = chosen(cases(concurrency, options.count), &options.only)?;
    let machine = Machine::here();
    let target = Target::open(&options.target, 1).await?;
    let endpoint = target.connect(&options.target, usize::from(options.connections)).await?;
    let seed = options.seed.unwrap_or_else(rand::random);
    let limits = Limits { duration: options.duration, count: options.count, concurrency, seed };
    let mut document = Document { machine, target: target.words(), seed, cases: Vec::new() };
    for case in cases {
        eprintln!("{} ...", case.name());
        document.cases.push(case.run(&endpoint, limits, target.server).await);
    }
    tell(&document, options.json.as_deref())
}

/// Prints a report, and writes it as JSON if requested.
pub(crate) fn tell(document: &Document, json: Option<&std::path::Path>) -> anyhow::Result<()> {
    let table = table::report(document);
    if json == Some(std::path::Path::new("-")) {
        eprint!("{table}");
    } else {
        print!("{table}");
    }
    json.map_or(Ok(()), |path| document.write(path))
}

/// Parses a duration: digits and one of the units `ms`, `s`, `m`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid time `{text}`; expected for example `10s`, `500ms` or `2m`");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    let found = match &text[split..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    };
    found.filter(|time| !time.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_name_or_by_how_names_begin() {
        let names = |only: &[&str]| -> anyhow::Result<Vec<String>> {
            let only: Vec<String> = only.iter().map(|word| (*word).to_owned()).collect();
            Ok(chosen(cases(8, None), &only)?.iter().map(|case| case.name()).collect())
        };
        let of = |only: &[&str]| names(only).expect("cases");
        assert_eq!(of(&["execute-noop", "upload-1KiB-batch"]), ["upload-1KiB-batch", "execute-noop"]);
        assert_eq!(of(&["find-missing"]), ["find-missing-1", "find-missing-100", "find-missing-10000"]);
        assert_eq!(of(&["find-missing-1"]), ["find-missing-1"]);
        assert_eq!(of(&[]).len(), 26);
        let refused = names(&["exec"]).expect_err("no such case").to_string();
        assert!(refused.contains("`exec`") && refused.contains("`execute-noop`"), "{refused}");
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "10", "s", "0s", "1h", "-1s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "expected `{bad}` to be refused");
        }
    }
}
