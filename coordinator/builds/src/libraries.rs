//! Finds the shared libraries on the system that runs a build's steps, with an action in the same environment that is
//! cached like any other.

use std::collections::BTreeSet;

use async_trait::async_trait;
use kiln_planner::plan::{Artifact, Platform, Step, Target};
use kiln_trees::tree::{Entry, Tree};

use super::Work;
use super::chosen::Chosen;
use super::lower::Outputs;
use super::steps::{self, Ended, Job};
use kiln_artifacts::{Error, Found, StepFact, System};
use parking_lot::Mutex;

/// Where the action puts its answer.
const ANSWER: &str = ".kiln-libraries";
/// Where the artifact's files are.
const FILES: &str = "artifact";

/// The system that a target's steps run on.
pub(super) struct OnWorker<'a> {
    pub(super) work: &'a Work,
    pub(super) target: &'a Target,
    pub(super) chosen: &'a Chosen<'a>,
    /// The platform of what a Dockerfile downloads.
    pub(super) builder: Platform,
    pub(super) artifact: &'a Artifact,
    /// What ran for the artifact itself.
    pub(super) facts: Mutex<Vec<StepFact>>,
}

impl std::fmt::Debug for OnWorker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnWorker").field("target", &self.target.name).finish_non_exhaustive()
    }
}

impl OnWorker<'_> {
    /// The artifact's last step.
    fn last(&self) -> Option<&Step> {
        let from = self.artifact.from.last()?;
        self.work.plan.steps.iter().find(|step| step.name == *from)
    }

    /// The image that it ran in, if it ran in one.
    fn image(&self) -> Option<&str> {
        self.target.image_of(self.last()?)
    }

    fn failed(&self, reason: String, is_project_fault: bool) -> Error {
        Error::Libraries { artifact: self.artifact.name.clone(), reason, is_project_fault }
    }
}

#[async_trait]
impl System for OnWorker<'_> {
    async fn libraries(
        &self,
        artifact: &Tree,
        files: &[String],
        skip: &BTreeSet<String>,
        copy: bool,
    ) -> Result<Found, Error> {
        let mut step = Step::new(format!("libraries-{}", self.artifact.name), script(artifact, files, skip, copy));
        step.why = "finds the shared libraries that the artifact needs".to_owned();
        step.inputs = vec!["!**".to_owned()];
        step.outputs = vec![ANSWER.to_owned()];
        step.tools = vec!["ldd".to_owned()];
        step.image = self.image().map(str::to_owned);
        step.packages = self.last().map(|last| last.packages.clone()).unwrap_or_default();
        let mut tree = Tree::default();
        tree.entries.insert(FILES.to_owned(), Entry::Directory(artifact.clone()));
        let job = Job {
            step,
            target: self.target.clone(),
            shown: self.target.platform,
            environment: self.chosen.get().await.map_err(|reason| self.failed(reason, false))?,
            shard: 0,
            needed: self.artifact.from.clone(),
            needs: vec![Outputs { tree }],
            path_weight: 1,
            history: kiln_proto::v1::StepHistory::default(),
            shares: None,
            memory_bytes: None,
            again: false,
            rooted: None,
            root: None,
        };
        let span = job.span();
        let outputs = match tracing::Instrument::instrument(steps::run(self.work, job), span).await {
            Ended::Succeeded(finished) => finished.outputs,
            Ended::Failed(words) => return Err(self.failed(words, true)),
            Ended::FarmFailed(words) | Ended::InputsGone(words) => return Err(self.failed(words, false)),
        };
        let store = &*self.work.stores.blobs;
        let mut tree = outputs.tree;
        kiln_store::trees::expand_in_place(store, &mut tree).await?;
        let Some(Entry::Directory(answer)) = tree.get(ANSWER) else {
            return Err(self.failed("the list of its libraries is not a directory".to_owned(), false));
        };
        let mut found = Found::default();
        for line in text(store, answer, "found").await?.lines() {
            if let Some((name, path)) = line.split_once('\t') {
                found.paths.insert(name.to_owned(), path.to_owned());
            }
        }
        found.absent = text(store, answer, "absent").await?.lines().map(str::to_owned).collect();
        if let Some(Entry::Directory(copies)) = answer.entries.get("lib") {
            for (name, entry) in &copies.entries {
                if let Entry::File { digest, .. } = entry {
                    found.copies.insert(name.clone(), *digest);
                }
            }
        }
        Ok(found)
    }

    fn name(&self) -> &str {
        self.image().unwrap_or_else(|| self.chosen.os())
    }
}

async fn text(store: &dyn kiln_store::BlobStore, answer: &Tree, name: &str) -> Result<String, Error> {
    match answer.entries.get(name) {
        Some(Entry::File { digest, .. }) => Ok(String::from_utf8_lossy(&store.get(digest).await?).into_owned()),
        _ => Ok(String::new()),
    }
}

/// Asks the loader itself with `ldd`: it knows the system's directories and the search paths of each file.
fn script(artifact: &Tree, files: &[String], skip: &BTreeSet<String>, copy: bool) -> String {
    let mut directories = BTreeSet::new();
    for (path, _) in kiln_store::trees::flatten(artifact) {
        let (directory, name) = path.rsplit_once('/').unwrap_or((".", &path));
        if name.contains(".so") {
            directories.insert(format!("$here/{}", directory.replace(['"', '$', '`', '\\'], "?")));
        }
    }
    let directories: Vec<String> = directories.into_iter().collect();
    let files: Vec<String> = files.iter().map(|file| quote(&format!("./{file}"))).collect();
    let skip: Vec<&str> = skip.iter().map(String::as_str).collect();
    let take = if copy { "cp -L \"$path\" \"$answer/lib/$name\" && chmod 644 \"$answer/lib/$name\"" } else { ":" };
    format!(
        r#"mkdir -p {ANSWER}/lib
answer=$PWD/{ANSWER}
: >"$answer/all"
cd {FILES}
here=$(pwd -P)
for file in {files}; do
  LD_LIBRARY_PATH="{directories}" ldd "$file" >>"$answer/all" 2>/dev/null || :
done
: >"$answer/found"
: >"$answer/absent"
while read -r name arrow path rest; do
  test "$arrow" = '=>' || continue
  case $path in
    "$here"/*) ;;
    /*)
      printf '%s\t%s\n' "$name" "$path" >>"$answer/found"
      case ' {skip} ' in
        *" $name "*) ;;
        *) test -e "$answer/lib/$name" || {{ {take}; }} ;;
      esac ;;
    not) echo "$name" >>"$answer/absent" ;;
  esac
done <"$answer/all"
rm "$answer/all"
sort -u -o "$answer/found" "$answer/found"
sort -u -o "$answer/absent" "$answer/absent"
"#,
        files = files.join(" "),
        directories = directories.join(":"),
        skip = skip.join(" "),
    )
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
