//! Images that were built before from the same: their files are neither copied nor packed again.
//!
//! Invariant: an image is taken from here only if all that decides it is equal and each of its commands has a cached result, which is
//! looked up as in any other build. So a build reports the same steps, the same hits and the same image as one that goes through every
//! instruction.

use std::collections::BTreeMap;

use futures::future::join_all;
use kiln_dockerfile::config::Image;
use kiln_dockerfile::{Build, Operation, Operator, Run};
use kiln_proto::digest::Digest;
use kiln_roots::Packing;
use kiln_store::recipes::Recipes;
use serde::{Deserialize, Serialize};

use super::{Building, Command, Maker, Ran};
use crate::Subject;
use crate::assemble::{Error, Made};
use crate::sbom::system::Installed;

/// Increased when the same instructions would give another image.
const VERSION: u32 = 1;
const ROOT: &str = "root";
const CONTENT: &str = "content";
const BLOB: &str = "blob/";

/// What a command began with and what it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) root: Digest,
    pub(super) times: Digest,
    pub(super) mounted: Option<Digest>,
    pub(super) ran: Ran,
}

/// All that decides an image. What the commands leave is compared when they have been looked up.
#[derive(Serialize)]
pub(super) struct Recipe {
    dockerfile_image: u32,
    name: String,
    sources: String,
    description: String,
    operations: Vec<String>,
    result: usize,
    config: Image,
    inherited_history: usize,
    bases: BTreeMap<String, String>,
    platform: String,
    builder: String,
    epoch: i64,
    undated: i64,
    tag: String,
}

/// What a recipe's result says beside its blobs.
#[derive(Serialize, Deserialize)]
struct Kept {
    manifest: (String, u64),
    size_bytes: u64,
    installed: Vec<Installed>,
    notes: Vec<String>,
}

impl Maker<'_> {
    /// The recipe of an image; none if something in it has to be asked for again whatever is equal.
    pub(super) async fn recipe(&self, build: &Build, packing: Packing) -> Option<Recipe> {
        let asks = |operation: &Operation| {
            operation.no_cache || matches!(operation.kind, Operator::Fetch(_) | Operator::Git(_))
        };
        if build.operations.iter().any(asks) {
            return None;
        }
        let bases = self.bases.lock().await;
        // What is derived for debugging shows every field. If that changes with the program, the image is only put together again.
        let shown = |operation: &Operation| format!("{} {} {:?}", operation.name, operation.platform, operation.kind);
        Some(Recipe {
            dockerfile_image: VERSION,
            name: self.given.artifact.name.clone(),
            sources: self.given.tree.to_string(),
            description: format!("{:?}", self.description),
            operations: build.operations.iter().map(shown).collect(),
            result: build.result,
            config: build.image.clone(),
            inherited_history: build.inherited_history,
            bases: bases.iter().map(|(image, base)| (format!("{image:?}"), base.base.digest.to_string())).collect(),
            platform: self.platform.to_string(),
            builder: self.given.builder.to_string(),
            epoch: packing.epoch,
            undated: packing.undated,
            tag: self.tag(),
        })
    }

    fn recipes(&self) -> Recipes<'_> {
        let given = self.given;
        Recipes { stores: given.stores, instance: given.instance, function: given.function }
    }
}

impl Building<'_> {
    /// The image of an earlier build; none if there is none, or one of its commands has no cached result or another one.
    pub(super) async fn recall(&self, recipe: &Recipe) -> Result<Option<Made>, Error> {
        let Some((kept, files)) = self.maker.recipes().find::<Kept>(recipe).await? else { return Ok(None) };
        let (Some(root), Some(content)) = (files.get(ROOT), files.get(CONTENT)) else { return Ok(None) };
        let mut commands = Vec::new();
        for (at, operation) in self.build.operations.iter().enumerate() {
            let Operator::Run(run) = &operation.kind else { continue };
            let Some(carried) = Carried::read(at, &files) else { return Ok(None) };
            commands.push((self.again(operation, run, &carried)?, carried.ran));
        }
        let asked: Vec<&Command> = commands.iter().map(|(command, _)| command).collect();
        if !self.maker.given.commands.are_cached(&asked).await? {
            return Ok(None);
        }
        let ran = join_all(asked.iter().map(|command| self.maker.given.commands.run(command))).await;
        if !ran.iter().zip(&commands).all(|(ran, (_, before))| ran.as_ref().is_ok_and(|ran| ran == before)) {
            return Ok(None);
        }
        let Ok(manifest) = Digest::new(kiln_proto::digest::DigestFunction::Sha256, &kept.manifest.0, kept.manifest.1)
        else {
            return Ok(None);
        };
        let blobs = files.iter().filter(|(name, _)| name.starts_with(BLOB)).map(|(_, digest)| *digest).collect();
        Ok(Some(Made {
            subjects: vec![Subject { name: self.maker.given.artifact.name.clone(), digest: manifest }],
            installed: kept.installed,
            notes: kept.notes,
            ..Made::of_blobs(*root, *content, kept.size_bytes, blobs)
        }))
    }

    /// Remembers an image and the commands that led to it. `notes` are those that going through its instructions gave.
    pub(super) async fn remember(&self, recipe: &Recipe, made: &Made, notes: &[String]) -> Result<(), Error> {
        let [subject] = &made.subjects[..] else { return Ok(()) };
        let numbered = made.blobs.iter().enumerate().map(|(at, blob)| (format!("{BLOB}{at}"), *blob));
        let mut files: BTreeMap<String, Digest> = numbered.collect();
        files.extend([(ROOT.to_owned(), made.root), (CONTENT.to_owned(), made.content)]);
        for (at, carried) in &*self.carried.lock() {
            files.extend(carried.named(*at));
        }
        let kept = Kept {
            manifest: (subject.digest.hex(), subject.digest.size),
            size_bytes: made.size_bytes,
            installed: made.installed.clone(),
            notes: notes.to_vec(),
        };
        Ok(self.maker.recipes().keep(recipe, &kept, &files).await?)
    }

    /// A command as it was carried out before.
    fn again(&self, operation: &Operation, run: &Run, carried: &Carried) -> Result<Command, Error> {
        let (mounts, _) = self.mounts(run)?;
        self.command(operation, run, (carried.root, carried.times), mounts, carried.mounted)
    }
}

impl Carried {
    fn names(at: usize) -> [String; 5] {
        ["root", "times", "mounted", "layer", "left"].map(|what| format!("command/{at}/{what}"))
    }

    fn named(&self, at: usize) -> impl Iterator<Item = (String, Digest)> {
        let digests = [Some(self.root), Some(self.times), self.mounted, Some(self.ran.layer), Some(self.ran.times)];
        Self::names(at).into_iter().zip(digests).filter_map(|(name, digest)| Some((name, digest?)))
    }

    fn read(at: usize, files: &BTreeMap<String, Digest>) -> Option<Self> {
        let [root, times, mounted, layer, left] = Self::names(at).map(|name| files.get(&name).copied());
        Some(Self { root: root?, times: times?, mounted, ran: Ran { layer: layer?, times: left? } })
    }
}
