//! Submits files on this disk as a build of a tenant: does locally what `kiln build` does over the network.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kiln_contexts::project::{self, Project, Sources};
use kiln_planner::plan::{Options, Platform};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::meter::Meter;
use kiln_proto::transfer::Blob;
use kiln_proto::v1::{self, Build};
use kiln_scan::{Scanned, git};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::config::Hook;
use super::deliveries::{Job, Key};
use crate::Tenant;
use kiln_store::{BlobStore, disk};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
/// Files that are stored at once.
const PUTS: usize = 8;

/// A tree that cannot be built.
#[derive(Debug)]
pub(super) enum Error {
    /// The project's fault, with the reason.
    Project(String),
    /// The farm's fault, with the reason.
    Farm(String),
}

fn farm(error: impl std::fmt::Display) -> Error {
    Error::Farm(error.to_string())
}

/// Scans a project, stores what the tenant lacks of it, and submits its build. Idempotent: the same key returns the
/// same build.
pub(super) async fn submit(
    tenant: &Tenant,
    hook: &Hook,
    key: Key,
    job: &Job,
    directory: &Path,
) -> Result<Build, Error> {
    let directory = directory.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        let context = kiln_context::of(&directory);
        let facts = git::facts(&context.root, &context.parts);
        let plan = Options { directory: context.project.clone(), ..Options::new(host()) };
        let found = Project::new(context.root, FUNCTION, plan);
        let scan = kiln_scan::Options { parts: context.parts, ..found.scan };
        let found = Project { scan, has_git_files: false, ..found };
        (project::sources(&found, &Meter::default()), facts, context.project)
    });
    let (sources, facts, directory) = looked.await.map_err(farm)?;
    let Sources { scanned, contexts, .. } = sources.map_err(|error| Error::Project(error.to_string()))?;
    // Blobs that are stored stay until the build itself holds them.
    let _hold = tenant.stores.in_use.begin();
    store(&*tenant.stores.blobs, &scanned).await?;
    let secrets = hook.secrets().map_err(Error::Farm)?;
    let wire = request(hook, key, job, &scanned, (facts, directory))?;
    let times = (!contexts.is_empty()).then(|| FUNCTION.digest(&scanned.times.encode()).to_wire());
    let source = wire.source.map(|source| v1::Source { contexts, times, ..source });
    let request = v1::SubmitRequest { secrets, source, ..wire };
    tenant.builds.submit_verified(request).await.map_err(|status| match status.code() {
        tonic::Code::InvalidArgument => Error::Project(status.message().to_owned()),
        _ => Error::Farm(status.message().to_owned()),
    })
}

fn request(
    hook: &Hook,
    key: Key,
    job: &Job,
    scanned: &Scanned,
    (facts, project): (git::Facts, String),
) -> Result<v1::SubmitRequest, Error> {
    let name = job.push.path.rsplit('/').next().unwrap_or_default();
    let below = hook.directory.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(v1::SubmitRequest {
        digest_function: FUNCTION.to_wire(),
        source: Some(v1::Source {
            root: Some(scanned.digest.to_wire()),
            commit: facts.commit,
            dirty: facts.dirty,
            describe: facts.describe,
            repository: facts.repository,
            commit_time: facts.commit_time,
            // A commit is checked out here, and not its branch.
            branch: job.push.reference.strip_prefix("refs/heads/").unwrap_or_default().to_owned(),
            directory: below.unwrap_or_else(|| name.to_owned()),
            project,
            ..Default::default()
        }),
        platforms: hook.platforms().map_err(Error::Farm)?,
        targets: hook.targets.clone(),
        host_platform: host().to_string(),
        request_id: format!("webhook-{}", key.hex()),
        user: job.push.user.clone(),
        allow_emulation: hook.allow_emulation,
        scope: scope(&job.push.reference, &job.push.default_branch),
        ..Default::default()
    })
}

/// The scope of what builds of a reference leave in caches: the base for the default branch, which everyone trusts.
fn scope(reference: &str, default_branch: &str) -> String {
    let is_default = reference.strip_prefix("refs/heads/").is_some_and(|branch| branch == default_branch);
    let name = if is_default { String::new() } else { reference.to_owned() };
    match kiln_auth::check_scope(&name) {
        Ok(()) => name,
        Err(_) if is_default => name,
        // Nothing that anybody else reads.
        Err(_) => format!("sha256:{}", FUNCTION.digest(name.as_bytes()).hex()),
    }
}

/// This machine's platform.
fn host() -> Platform {
    if cfg!(target_arch = "aarch64") { Platform::Arm64 } else { Platform::Amd64 }
}

async fn store(blobs: &dyn BlobStore, scanned: &Scanned) -> Result<(), Error> {
    let mut all = scanned.blobs();
    let digests: Vec<Digest> = all.keys().copied().collect();
    let missing = blobs.find_missing(&digests).await.map_err(farm)?;
    let puts = missing.into_iter().filter_map(|digest| Some((digest, all.remove(&digest)?)));
    let puts: Vec<_> = puts.map(|(digest, blob)| put(blobs, digest, blob)).collect();
    stream::iter(puts).buffer_unordered(PUTS).try_collect().await
}

async fn put(blobs: &dyn BlobStore, digest: Digest, blob: Blob) -> Result<(), Error> {
    match blob {
        Blob::Bytes(data) => blobs.put(&digest, data).await.map_err(farm),
        Blob::File(path) => put_file(blobs, digest, path, 0).await,
        Blob::Part(path, offset) => put_file(blobs, digest, path, offset).await,
    }
}

async fn put_file(blobs: &dyn BlobStore, digest: Digest, path: PathBuf, offset: u64) -> Result<(), Error> {
    let mut file = tokio::fs::File::open(path).await.map_err(farm)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(farm)?;
    let mut file = file.take(digest.size);
    let mut writer = blobs.write(&digest).await.map_err(farm)?;
    loop {
        let mut piece = Vec::with_capacity(disk::CHUNK_BYTES);
        if (&mut file).take(disk::CHUNK_BYTES as u64).read_to_end(&mut piece).await.map_err(farm)? == 0 {
            return writer.commit().await.map_err(farm);
        }
        writer.write(Bytes::from(piece)).await.map_err(farm)?;
    }
}
