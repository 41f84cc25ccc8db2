//! Finds builds in a long history: for each thing that one may ask for (a project, a user, a status, a word) the ids of the builds that
//! have it, newest first.
//!
//! Invariants: a build's record and its entries here change in one transaction. A search reads a bounded number of entries, and says
//! from where it goes on if there may be more.

use bytes::Bytes;
use kiln_journal::{Batch, Durability, Range, Space};
use kiln_proto::v1::{Build, ListRequest, Source, Status, StepCounts, step_finished, step_state::Phase};
use prost::Message;

use super::{BUILDS, Error, Records, decoded, encoded};

mod source;
use source::Ids;

/// A term and a build's id to nothing; and, of the term of all builds, to the build without its steps.
const INDEX: Space = "build-index";
/// The end of a term.
const END: char = '\u{1}';
/// The term that all builds have.
const ALL: char = 'a';
/// Ids that are read at a time.
const PAGE: usize = 512;
/// Builds that one search looks at.
const LOOKED_AT: usize = 20_000;
/// Words of a build that can be searched for, and their length in characters.
const WORDS: usize = 32;
const WORD: usize = 40;
/// Builds that are added at a time to an index that lacks them.
const ADDED: usize = 128;

/// Where a search goes on; `None` at the end.
pub type More = Option<String>;

/// A build without its steps and artifacts, with what a list says of them.
pub fn brief(build: &Build) -> Build {
    let source = build.source.as_ref().map(|source| Source {
        commit: source.commit.clone(),
        dirty: source.dirty,
        describe: source.describe.clone(),
        repository: source.repository.clone(),
        commit_time: source.commit_time,
        directory: source.directory.clone(),
        project: source.project.clone(),
        branch: source.branch.clone(),
        ..Source::default()
    });
    let counts = Some(counts(build));
    let (steps, artifacts) = (Vec::new(), Vec::new());
    Build { source, steps, artifacts, counts, ..build.clone() }
}

fn counts(build: &Build) -> StepCounts {
    let count = |is: &dyn Fn(&kiln_proto::v1::StepState) -> bool| {
        build.steps.iter().filter(|step| is(step)).count().try_into().unwrap_or(u32::MAX)
    };
    StepCounts {
        // Those that have not begun are known by their number only.
        steps: build.counts.map_or(0, |planned| planned.steps).max(count(&|_| true)),
        ended: count(&|step| matches!(step.phase(), Phase::Done | Phase::Failed | Phase::Skipped)),
        hits: count(&|step| step.finished.as_ref().is_some_and(|done| done.cache() == step_finished::Cache::Hit)),
        failed: count(&|step| step.phase() == Phase::Failed),
    }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn split(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word.to_lowercase().chars().take(WORD).collect())
}

/// What a build is found by as text.
fn words(build: &Build) -> Vec<String> {
    let source = build.source.clone().unwrap_or_default();
    let repository = source.repository.rsplit('/').next().unwrap_or_default().to_owned();
    let texts = [
        &build.project,
        &build.user,
        &build.version,
        &source.branch,
        &source.describe,
        &repository,
        &source.commit,
        &build.message,
    ];
    let mut words: Vec<String> = texts.into_iter().flat_map(|text| split(text)).collect();
    words.truncate(WORDS);
    words.sort_unstable();
    words.dedup();
    words
}

fn term(kind: char, value: &str) -> String {
    format!("{kind}{}{END}", clean(value))
}

fn of_status(status: Status) -> String {
    term('s', &(status as i32).to_string())
}

fn terms(build: &Build) -> Vec<String> {
    let branch = build.source.as_ref().map(|source| source.branch.clone()).unwrap_or_default();
    let named = [('p', &build.project), ('u', &build.user), ('b', &branch)];
    let mut terms: Vec<String> =
        named.into_iter().filter(|(_, value)| !value.is_empty()).map(|(kind, value)| term(kind, value)).collect();
    terms.extend(build.platforms.iter().map(|platform| term('f', platform)));
    terms.push(of_status(build.status()));
    terms.extend(words(build).iter().map(|word| term('w', word)));
    terms
}

/// Adds what finds a build.
pub(super) fn add(mut batch: Batch, build: &Build) -> Batch {
    if build.status() != Status::Running {
        batch = batch.remove(INDEX, format!("{}{}", of_status(Status::Running), build.id));
    }
    for term in terms(build) {
        batch = batch.put(INDEX, format!("{term}{}", build.id), Bytes::new());
    }
    batch.put(INDEX, format!("{ALL}{END}{}", build.id), encoded(&brief(build)))
}

/// Removes what finds a build.
pub(super) fn remove(mut batch: Batch, build: &Build) -> Batch {
    for term in terms(build).into_iter().chain([of_status(Status::Running), format!("{ALL}{END}")]) {
        batch = batch.remove(INDEX, format!("{term}{}", build.id));
    }
    batch
}

/// Whether a build is what is asked for.
fn is_asked(build: &Build, request: &ListRequest, asked: &[String]) -> bool {
    let same = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
    let branch = build.source.as_ref().map(|source| source.branch.as_str()).unwrap_or_default();
    let has = words(build);
    same(&request.project, &build.project)
        && same(&request.user, &build.user)
        && same(&request.branch, branch)
        && (request.platform.is_empty() || build.platforms.contains(&request.platform))
        && (request.statuses.is_empty() || request.statuses().any(|status| status == build.status()))
        && asked.iter().all(|word| has.iter().any(|has| has.starts_with(word.as_str())))
}

impl Records {
    /// Adds the builds that an earlier version left without an index. The newest is looked at, since that version may have run in between.
    ///
    /// # Errors
    /// If the journal cannot be used.
    pub async fn complete_index(&self) -> Result<(), Error> {
        let mut after: Option<String> = None;
        let mut added = 0_u64;
        loop {
            let range = Range { after: after.take(), ..Range::last(ADDED) };
            let page = self.journal.list(BUILDS, range).await?;
            let keys = page.iter().map(|(id, _)| format!("{ALL}{END}{id}")).collect();
            let known = self.journal.get_many(INDEX, keys).await?;
            let mut batch = Batch::default();
            for ((_, data), known) in page.iter().zip(&known) {
                if known.is_none() {
                    batch = add(batch, &Build::decode(data.clone())?);
                    added += 1;
                }
            }
            if !batch.is_empty() {
                self.journal.commit(batch, Durability::Relaxed).await?;
            }
            match page.last() {
                Some((id, _)) if known.iter().any(Option::is_none) => after = Some(id.clone()),
                _ => break,
            }
        }
        if added > 0 {
            tracing::info!(builds = added, "indexed the builds of an earlier version");
        }
        Ok(())
    }

    /// The builds that a request asks for, newest first and without their steps, at most `limit`; and where to go on.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn search(&self, request: &ListRequest, limit: usize) -> Result<(Vec<Build>, More), Error> {
        let asked: Vec<String> = split(&request.text).collect();
        let mut ids = self.narrowest(request, &asked).await?;
        let (mut found, mut looked_at) = (Vec::new(), 0);
        // An id is text with separators, which words are split at.
        let text = request.text.trim().to_lowercase();
        if request.before.is_empty() && text.len() >= 4 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            let like = Range { limit: Some(limit), backwards: true, ..Range::prefix(format!("{ALL}{END}{text}")) };
            found = decoded::<Build>(self.journal.list(INDEX, like).await?)?;
            found.retain(|build| is_asked(build, request, &[]));
        }
        let by_id = found.len();
        while looked_at < LOOKED_AT {
            let page = ids.next(&self.journal).await?;
            if page.is_empty() {
                return Ok((found, None));
            }
            let keys = page.iter().map(|id| format!("{ALL}{END}{id}")).collect();
            let builds = self.journal.get_many(INDEX, keys).await?;
            for (id, data) in page.iter().zip(builds) {
                looked_at += 1;
                let Some(build) = data.map(Build::decode).transpose()? else { continue };
                let is_there = found[..by_id].iter().any(|known: &Build| known.id == build.id);
                if is_there || !is_asked(&build, request, &asked) {
                    continue;
                }
                found.push(build);
                if found.len() >= limit {
                    return Ok((found, Some(id.clone())));
                }
            }
        }
        Ok((found, ids.last()))
    }

    /// The ids of the rarest thing that is asked for.
    async fn narrowest(&self, request: &ListRequest, asked: &[String]) -> Result<Ids, Error> {
        let before = &request.before;
        let named = [('p', &request.project), ('u', &request.user), ('b', &request.branch), ('f', &request.platform)];
        let mut candidates: Vec<Ids> = named
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(kind, value)| Ids::of(vec![term(kind, value)], before))
            .collect();
        if !request.statuses.is_empty() {
            candidates.push(Ids::of(request.statuses().map(of_status).collect(), before));
        }
        for word in asked {
            if let Some(terms) = self.known_words(word).await? {
                candidates.push(Ids::of(terms, before));
            }
        }
        let mut best = (Ids::of(vec![format!("{ALL}{END}")], before), None);
        for mut ids in candidates {
            // Whichever reaches back furthest in its first page has the fewest.
            let reaches = ids.look(&self.journal).await?;
            if best.1.as_ref().is_none_or(|known| reaches < *known) {
                best = (ids, Some(reaches));
            }
        }
        Ok(best.0)
    }

    /// The terms of the words that begin like this; `None` if there are too many to merge.
    async fn known_words(&self, begins: &str) -> Result<Option<Vec<String>>, Error> {
        const MOST: usize = 24;
        let prefix = format!("w{begins}");
        let (mut terms, mut after) = (Vec::new(), None::<String>);
        loop {
            let range = Range { after: after.take(), limit: Some(1), ..Range::prefix(prefix.clone()) };
            let page = self.journal.list(INDEX, range).await?;
            let Some((term, _)) = page.first().and_then(|(key, _)| key.split_once(END)) else { return Ok(Some(terms)) };
            if terms.len() == MOST {
                return Ok(None);
            }
            terms.push(format!("{term}{END}"));
            // Beyond every id of this word.
            after = Some(format!("{term}{END}\u{10FFFF}"));
        }
    }
}

#[cfg(test)]
mod tests;
