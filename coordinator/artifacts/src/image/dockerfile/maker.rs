//! The Dockerfile, its contexts and its bases, as they are read.

use std::sync::Arc;

use kiln_dockerfile::instruction::Network;
use kiln_dockerfile::patterns::Ignore;
use kiln_dockerfile::{
    BaseImage, Bases as Known, Build, Contexts, NamedContext, NoCache, Operator, Options, Reference, Resolved,
};
use kiln_images::platform::Platform;
use kiln_planner::plan;
use kiln_roots::Files;
use kiln_trees::root::Times;
use kiln_trees::tree::{Entry, Tree};
use serde_json::Value;

use super::super::base::{BaseError, Stored};
use super::Maker;
use crate::assemble::Error;
use crate::sbom::system::{self, Databases, Installed};

/// Largest Dockerfile and `.dockerignore` that are read, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Largest database of installed packages that is read, in bytes.
const MAX_DATABASE_BYTES: u64 = 256 << 20;

impl Maker<'_> {
    pub(super) fn wrong(&self, reason: String) -> Error {
        Error::Layout { artifact: self.given.artifact.name.clone(), reason }
    }

    /// An instruction's error with its place.
    pub(super) fn failed(&self, build: &Build, at: usize, error: Error) -> Error {
        let Some(operation) = build.operations.get(at) else { return error };
        let line = format!("`{}` line {}", self.description.file, operation.lines.0);
        let artifact = self.given.artifact.name.clone();
        match error {
            Error::Root(source) => {
                let place = format!("{line}: {}", operation.name);
                Error::Instruction { artifact, place, source: Box::new(source) }
            }
            Error::Layout { artifact, reason } => Error::Layout { artifact, reason: format!("{line}: {reason}") },
            Error::Command { artifact, reason, is_project_fault } => {
                Error::Command { artifact, reason: format!("{line}: {reason}"), is_project_fault }
            }
            other => other,
        }
    }

    /// The text of a file of the project; none if there is none.
    pub(super) async fn text(&self, path: &str) -> Result<Option<String>, Error> {
        let Some(Entry::File { digest, .. }) = self.given.sources.get(path) else { return Ok(None) };
        if digest.size > MAX_BYTES {
            return Err(self.wrong(format!("`{path}` is larger than {}", kiln_units::show_size(MAX_BYTES))));
        }
        let data = self.given.stores.blobs.get(digest).await?;
        kiln_dockerfile::decode(path, data.to_vec()).map(Some).map_err(|error| self.wrong(error.to_string()))
    }

    /// What is left out of a directory of the project.
    pub(super) async fn ignore(&self, directory: &str, dockerfile: Option<&str>) -> Result<Option<Ignore>, Error> {
        let own = dockerfile.map(|file| format!("{file}.dockerignore"));
        let general =
            if directory.is_empty() { ".dockerignore".to_owned() } else { format!("{directory}/.dockerignore") };
        for path in own.into_iter().chain([general]) {
            if let Some(text) = self.text(&path).await? {
                return Ignore::read(&path, &text).map(Some).map_err(|error| self.wrong(error.to_string()));
            }
        }
        Ok(None)
    }

    /// The times of the files of a directory of the project, as far as they are known.
    pub(super) async fn times(&self, directory: &str) -> Result<Times, Error> {
        let Some(digest) = self.given.times else { return Ok(Times::default()) };
        let data = match self.given.stores.blobs.get(&digest).await {
            Ok(data) => data,
            Err(error) if error.is_absent() => return Ok(Times::default()),
            Err(error) => return Err(error.into()),
        };
        let times = Times::decode(&data).map_err(|error| self.wrong(error.to_string()))?;
        Ok(kiln_roots::moved(&times, directory.as_bytes(), b""))
    }

    /// The Dockerfile's operations, and what its rules found.
    pub(super) async fn lower(&self, text: &str, ignore: Option<Ignore>) -> Result<(Build, Vec<String>), Error> {
        let description = self.description;
        let invalid = |error: kiln_dockerfile::Error| self.wrong(format!("{error}\n{}", error.snippet()));
        let file = kiln_dockerfile::parse(&description.file, text).map_err(invalid)?;
        let mut contexts = Contexts::default();
        for (name, value) in &description.contexts {
            contexts.add(name, NamedContext::read(value).map_err(|reason| self.wrong(reason))?);
        }
        let (own, builder) = (&self.platform.architecture, self.given.builder.architecture());
        let options = Options {
            target: description.stage.clone(),
            build_args: description.args.clone(),
            platform: (own != builder).then(|| kiln_dockerfile::Platform::linux(own)),
            build_platform: kiln_dockerfile::Platform::linux(builder),
            contexts,
            labels: description.labels.clone(),
            no_cache: match description.no_cache_stages.as_slice() {
                [] => NoCache::No,
                stages => NoCache::Stages(stages.to_vec()),
            },
            network: match description.network {
                plan::CommandNetwork::Default => Network::Default,
                plan::CommandNetwork::None => Network::None,
                plan::CommandNetwork::Host => Network::Host,
            },
            ignore,
            ..Options::default()
        };
        let mut known = Known::new();
        loop {
            let wanted = kiln_dockerfile::bases(&file, &options, &known).map_err(invalid)?;
            if wanted.is_empty() {
                break;
            }
            for image in wanted {
                let stored = self.stored(&image).await.map_err(|error| {
                    let at = |reason: String| kiln_dockerfile::unusable(&file, &options, &known, &image, reason);
                    self.unusable(error, &image, at)
                })?;
                let config = serde_json::from_value(Value::Object(stored.base.config.clone()));
                let config = config.map_err(|error| {
                    self.wrong(format!("the configuration of `{}` cannot be read: {error}", image.reference.show(None)))
                })?;
                known.add(image, Resolved { image: config, digest: Some(stored.base.digest.to_string()) });
            }
        }
        let build = kiln_dockerfile::lower(&file, &options, &known).map_err(invalid)?;
        let notes = build.lints.iter();
        let note = |lint: &kiln_dockerfile::lint::Lint| {
            format!("`{}` line {}: {} (`{}`)", description.file, lint.line, lint.message, lint.rule.name())
        };
        let notes = notes.map(note).collect();
        Ok((build, notes))
    }

    /// The error of a base image, at the place that names it.
    pub(super) fn unusable(
        &self,
        error: Error,
        image: &BaseImage,
        at: impl Fn(String) -> kiln_dockerfile::Error,
    ) -> Error {
        let Error::Base { artifact, source, .. } = error else { return error };
        let error = at(format!("base `{}`: {source}", image.reference.show(None)));
        let reason = format!("{error}\n{}", error.snippet());
        Error::Command { artifact, reason, is_project_fault: source.is_project_fault() }
    }

    /// An image in the store.
    pub(super) async fn stored(&self, image: &BaseImage) -> Result<Arc<Stored>, Error> {
        if let Some(known) = self.bases.lock().await.get(image) {
            return Ok(known.clone());
        }
        let platform = Platform {
            architecture: image.platform.architecture.clone(),
            os: image.platform.os.clone(),
            variant: (!image.platform.variant.is_empty()).then(|| image.platform.variant.clone()),
        };
        let found = match &image.reference {
            Reference::Registry(name) => self.given.bases.of_registry(name, &platform).await,
            Reference::Layout(path) => {
                let directory = path.split(['@', ':']).next().unwrap_or_default();
                let mut sent = Tree::default();
                if let Some(context) = self.given.contexts.get(&(String::new(), directory.to_owned())) {
                    sent.insert(directory, Entry::Directory(context.tree.clone()))
                        .map_err(|error| self.wrong(error.to_string()))?;
                }
                let found = self.given.bases.of_project(path, &sent, self.given.sources, &platform).await;
                // As with BuildKit, the only image of a layout is taken for any platform, and a rule reports that.
                match found.as_ref().err().and_then(BaseError::only_platform) {
                    Some(own) => self.given.bases.of_project(path, &sent, self.given.sources, &own).await,
                    None => found,
                }
            }
        };
        let stored = found.map_err(|source| Error::Base {
            artifact: self.given.artifact.name.clone(),
            base: image.reference.show(None),
            source: Box::new(source),
        })?;
        self.bases.lock().await.insert(image.clone(), stored.clone());
        Ok(stored)
    }

    /// The packages of the system that an image has.
    pub(super) async fn installed(&self, files: &Files) -> Result<Vec<Installed>, Error> {
        let mut found = Databases { dpkg: self.first(files, &[system::DPKG]).await?, ..Databases::default() };
        for name in self.roots.names(files, system::DPKG_PARTS).await? {
            // Beside each is a list of checksums.
            if let Some(name) = std::str::from_utf8(&name).ok().filter(|name| !name.ends_with(".md5sums")) {
                found.dpkg.extend(self.first(files, &[&format!("{}/{name}", system::DPKG_PARTS)]).await?);
            }
        }
        found.apk = self.first(files, &system::APK).await?;
        found.rpm = self.first(files, &system::RPM).await?;
        found.os_release = self.first(files, &system::OS_RELEASE).await?.pop();
        Ok(tokio::task::spawn_blocking(move || found.installed()).await.unwrap_or_default())
    }

    /// What the user should know about packages of an image's system that are not listed.
    pub(super) async fn unlisted(&self, files: &Files) -> Result<Option<String>, Error> {
        for directory in system::RPM_DIRECTORIES {
            let names = self.roots.names(files, directory).await?;
            if let Some(name) = system::unread_rpm(&names) {
                return Ok(Some(format!(
                    "`{}`: the bill of materials lacks the packages of rpm: it reads databases in SQLite's format, which rpm writes since \
                     4.16, and `{directory}/{name}` is in an older one; `rpmdb --rebuilddb` in the image converts it where rpm can",
                    self.given.artifact.name
                )));
            }
        }
        Ok(None)
    }

    /// The first of these files that is there.
    pub(super) async fn first(&self, files: &Files, paths: &[&str]) -> Result<Vec<Vec<u8>>, Error> {
        for path in paths {
            if let Some(data) = self.roots.content(files, path, MAX_DATABASE_BYTES).await? {
                return Ok(vec![data.to_vec()]);
            }
        }
        Ok(Vec::new())
    }

    /// The image that the result is built on.
    pub(super) async fn base_of(&self, build: &Build) -> Option<Arc<Stored>> {
        match &build.operations.get(build.first())?.kind {
            Operator::Base { image, .. } => self.bases.lock().await.get(image).cloned(),
            _ => None,
        }
    }
}
