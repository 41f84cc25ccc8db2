//! Gates that the farm itself evaluates: vulnerabilities, licences, size. They see the bill of materials and files of the sources.
//!
//! Invariant: a result that is remembered depends on nothing but the check, the bill of materials, and the content of the files.

use futures::{StreamExt, stream};
use kiln_gates::{Ignored, LicensePolicy, Outcome, Scan, Verdict, VulnerabilityPolicy};
use kiln_planner::plan::gates::{Check, Licenses, Severity, Vulnerabilities};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::recipes::Recipes;
use kiln_store::trees;
use kiln_trees::tree::{Entry, Tree};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Increased when a check answers differently.
const VERSION: u32 = 1;
/// Most entries of a database.
const MAX_ENTRIES: usize = 1_000_000;
/// Largest entry, and largest file of ignored ids, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Entries that are read at once.
const CONCURRENCY: usize = 32;

/// What a check found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checked {
    /// Why it failed; `None` if it passed.
    pub failure: Option<String>,
    /// Whether something could not be judged, which the check lets pass.
    pub warned: bool,
    /// All that was found, for people.
    pub text: String,
    /// The scanner of a predicate for vulnerabilities.
    pub scanner: Option<Value>,
    /// Whether this is known from an earlier build.
    #[serde(skip)]
    pub cached: bool,
}

impl Checked {
    /// What matters least of what was found, in a line: of a check that passed, what it counted.
    pub fn summary(&self) -> String {
        self.text.lines().last().unwrap_or_default().trim_start_matches("note: ").to_owned()
    }
}

/// A check that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It asks for something that is not there, or means nothing.
    #[error("{0}")]
    Invalid(String),
    /// The farm failed.
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
}

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub struct Checking<'a> {
    /// Where results are remembered and files are read.
    pub recipes: Recipes<'a>,
    /// The artifact's name.
    pub artifact: &'a str,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its bill of materials, a CycloneDX document.
    pub sbom: &'a [u8],
    /// The project's sources.
    pub sources: &'a Tree,
    /// Whether a result of an earlier build may be used.
    pub may_reuse: bool,
}

#[derive(Serialize)]
struct Recipe {
    gate: u32,
    check: String,
    sbom: String,
    database: String,
    ignored: String,
}

impl Checking<'_> {
    /// Makes a check. A gate with a command is none.
    ///
    /// # Errors
    /// If it asks for something that is not there, or the store fails.
    pub async fn check(&self, check: &Check) -> Result<Checked, CheckError> {
        match check {
            Check::Vulnerabilities(scan) => self.vulnerabilities(scan).await,
            Check::Licenses(policy) => self.licenses(policy),
            Check::Size { max_bytes } => {
                Ok(checked(&kiln_gates::check_size(self.artifact, self.size_bytes, *max_bytes), None))
            }
            Check::Command(_) => Err(CheckError::Invalid("a command is no check of the farm's own".to_owned())),
        }
    }

    fn licenses(&self, policy: &Licenses) -> Result<Checked, CheckError> {
        let policy = LicensePolicy {
            allow: policy.allow.clone(),
            deny: policy.deny.clone(),
            known: policy.known.clone(),
            unknown_fails: policy.unknown_fails,
        };
        let invalid = |error: &dyn std::fmt::Display| CheckError::Invalid(error.to_string());
        policy.validate().map_err(|error| invalid(&error))?;
        let components = kiln_gates::components(self.sbom).map_err(|error| invalid(&error))?;
        Ok(checked(&kiln_gates::check_licenses(&components, &policy), None))
    }

    async fn vulnerabilities(&self, scan: &Vulnerabilities) -> Result<Checked, CheckError> {
        let Some(Entry::Directory(database)) = self.sources.get(&scan.database) else {
            return Err(absent("database", &scan.database, "directory"));
        };
        let ignored = match &scan.ignore {
            None => String::new(),
            Some(path) => self.text(path).await?,
        };
        let function = self.recipes.function;
        let content = database.encode(function, &mut |_| {});
        let recipe = Recipe {
            gate: VERSION,
            check: format!("{:?} {} {}", scan.fail_on, scan.unknown_fails, scan.database),
            sbom: function.digest(self.sbom).to_string(),
            database: content.to_string(),
            ignored: DigestFunction::Sha256.digest(ignored.as_bytes()).to_string(),
        };
        if self.may_reuse
            && let Some((known, _)) = self.recipes.find::<Checked>(&recipe).await?
        {
            return Ok(Checked { cached: true, ..known });
        }
        let policy = VulnerabilityPolicy {
            fail_on: severity(scan.fail_on),
            ignored: Ignored::read(&ignored),
            unknown_fails: scan.unknown_fails,
        };
        let found = self.scanned(database, &scan.database).await?;
        let uri = format!("blobs/{}/{}", content.hex(), content.size);
        let found = checked(&found.verdict(&policy), Some(found.scanner(env!("CARGO_PKG_VERSION"), &uri)));
        if found.failure.is_none() {
            self.recipes.keep(&recipe, &found, &std::collections::BTreeMap::new()).await?;
        }
        Ok(found)
    }

    /// Shows a scan each file of the database that can be an entry.
    async fn scanned(&self, database: &Tree, place: &str) -> Result<Scan, CheckError> {
        let mut scan = Scan::new(self.sbom).map_err(|error| CheckError::Invalid(error.to_string()))?;
        let files = trees::flatten(database).into_iter().filter_map(|(path, entry)| match entry {
            Entry::File { digest, .. } if path.ends_with(".json") => Some((path, digest)),
            _ => None,
        });
        let files: Vec<(String, Digest)> = files.collect();
        if files.len() > MAX_ENTRIES {
            let words = format!("the database `{place}` has {} entries: expected at most {MAX_ENTRIES}", files.len());
            return Err(CheckError::Invalid(words));
        }
        if let Some((path, digest)) = files.iter().find(|(_, digest)| digest.size > MAX_BYTES) {
            let words = format!("`{place}/{path}` has {} bytes: expected one entry, at most {MAX_BYTES}", digest.size);
            return Err(CheckError::Invalid(words));
        }
        let store = &*self.recipes.stores.blobs;
        let read = |(path, digest): (String, Digest)| async move { (path, store.get(&digest).await) };
        let mut entries = stream::iter(files).map(read).buffered(CONCURRENCY);
        while let Some((path, data)) = entries.next().await {
            scan.entry(&format!("{place}/{path}"), &data?);
        }
        Ok(scan)
    }

    /// A small file of the sources.
    async fn text(&self, path: &str) -> Result<String, CheckError> {
        match self.sources.get(path) {
            Some(Entry::File { digest, .. }) if digest.size <= MAX_BYTES => {
                let data = self.recipes.stores.blobs.get(digest).await?;
                Ok(String::from_utf8_lossy(&data).into_owned())
            }
            _ => Err(absent("ignore", path, "file")),
        }
    }
}

fn absent(key: &str, path: &str, what: &str) -> CheckError {
    CheckError::Invalid(format!(
        "the sources have no {what} `{path}`, which is its `{key}`: put it there, and see that git does not ignore it"
    ))
}

fn severity(least: Severity) -> Option<kiln_gates::Severity> {
    match least {
        Severity::Any => None,
        Severity::Low => Some(kiln_gates::Severity::Low),
        Severity::Medium => Some(kiln_gates::Severity::Medium),
        Severity::High => Some(kiln_gates::Severity::High),
        Severity::Critical => Some(kiln_gates::Severity::Critical),
    }
}

fn checked(verdict: &Verdict, scanner: Option<Value>) -> Checked {
    let warned = verdict.outcome() == Outcome::Warned;
    Checked { failure: verdict.message(), warned, text: verdict.text(), scanner, cached: false }
}
