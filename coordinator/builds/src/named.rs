//! Finds the build or artifact that an id, a unique part of one, a name or `latest` refers to.
//!
//! Invariant: an exact id always means itself. If several builds match, the request is refused with their ids; if
//! several artifacts of one name match, those of its newest build are meant.

use kiln_proto::v1::{Artifact, Build};
use tonic::Status;

use super::{Records, unread};

/// The word for the newest.
const LATEST: &str = "latest";
/// Candidates that an error lists.
const SHOWN: usize = 5;
/// How many recent builds are searched.
const LATELY: usize = 200;
/// How many artifacts are searched.
const ARTIFACTS: usize = 10_000;
/// Fewest characters of an id that are accepted.
const FEWEST: usize = 2;

/// The build that `named` refers to. `latest` means the latest of `user`.
///
/// # Errors
/// NOT_FOUND, or INVALID_ARGUMENT if several match.
pub(super) async fn build(records: &Records, named: &str, user: &str) -> Result<Build, Status> {
    if let Some(build) = records.build(named).await.map_err(unread)? {
        return Ok(build);
    }
    if named == LATEST {
        let mut builds = records.builds(LATELY).await.map_err(unread)?;
        let own = builds.iter().position(|build| !user.is_empty() && build.user == user);
        return match own.unwrap_or(0) {
            at if at < builds.len() => Ok(builds.swap_remove(at)),
            _ => Err(Status::not_found("no build yet; `kiln build` starts one")),
        };
    }
    let mut like = match named.len() {
        0..FEWEST => Vec::new(),
        _ => records.builds_like(named, SHOWN + 1).await.map_err(unread)?,
    };
    match like.len() {
        0 => Err(Status::not_found(format!("no build `{named}`; `kiln builds` lists them"))),
        1 => Ok(like.swap_remove(0)),
        _ => Err(several("builds", named, like.iter().map(|build| build.id.as_str()))),
    }
}

/// The artifact that `named` refers to; if a build has several platforms, the one for `platform`.
///
/// # Errors
/// NOT_FOUND, or INVALID_ARGUMENT if several match.
pub(super) async fn artifact(records: &Records, named: &str, platform: &str) -> Result<Artifact, Status> {
    if let Some(artifact) = records.artifact(named).await.map_err(unread)? {
        return Ok(artifact);
    }
    let by_name = |artifact: &&Artifact| named == LATEST || artifact.name == named || is_version(artifact, named);
    // An artifact with unchanged content keeps its first record; which one was built last is known from the builds.
    for build in records.builds(LATELY).await.map_err(unread)? {
        let of_build: Vec<&Artifact> = build.artifacts.iter().filter(by_name).collect();
        if !of_build.is_empty() {
            return one_of(&of_build, named, platform);
        }
    }
    let all = records.artifacts("", ARTIFACTS).await.map_err(unread)?;
    let named_so: Vec<&Artifact> = all.iter().filter(by_name).collect();
    if let Some(newest) = named_so.first() {
        let of_build: Vec<&Artifact> = named_so.iter().copied().filter(|one| one.build == newest.build).collect();
        return one_of(&of_build, named, platform);
    }
    let hash = |artifact: &Artifact| artifact.id.rsplit('-').next().unwrap_or_default().to_owned();
    let is_like = |one: &&Artifact| one.id.starts_with(named) || hash(one).starts_with(named);
    let like: Vec<&Artifact> = all.iter().filter(|one| named.len() >= FEWEST && is_like(one)).collect();
    match like.as_slice() {
        [] => Err(Status::not_found(format!("no artifact `{named}`; `kiln artifacts` lists them"))),
        [one] => Ok((*one).clone()),
        _ => Err(several("artifacts", named, like.iter().map(|one| one.id.as_str()))),
    }
}

/// The one of a build's artifacts that matches the platform.
fn one_of(found: &[&Artifact], named: &str, platform: &str) -> Result<Artifact, Status> {
    let fits: Vec<&Artifact> = found.iter().copied().filter(|one| one.platform == platform).collect();
    match (found, fits.as_slice()) {
        ([one], _) | (_, [one]) => Ok((*one).clone()),
        _ => Err(several("artifacts", named, found.iter().map(|one| one.id.as_str()))),
    }
}

/// Whether this is `NAME-VERSION` of an artifact.
fn is_version(artifact: &Artifact, named: &str) -> bool {
    let version = named.strip_prefix(artifact.name.as_str()).and_then(|rest| rest.strip_prefix('-'));
    version.is_some_and(|version| !version.is_empty() && version == artifact.version)
}

fn several<'a>(what: &str, named: &str, ids: impl Iterator<Item = &'a str>) -> Status {
    let mut ids: Vec<&str> = ids.take(SHOWN + 1).collect();
    let more = if ids.len() > SHOWN { ", …" } else { "" };
    ids.truncate(SHOWN);
    Status::invalid_argument(format!("`{named}` matches several {what}: {}{more}; give more of the id", ids.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::v1::SubmitRequest;

    async fn records() -> (tempfile::TempDir, Records) {
        let (dir, records) = crate::tests::records();
        for (id, user) in [("0190aa11", "ada"), ("0190aa22", "bob"), ("0190bb33", "bob")] {
            let build = Build { id: id.into(), user: user.into(), ..Default::default() };
            records.submit(&build, &SubmitRequest::default()).await.unwrap();
        }
        for (id, version, platform, build) in [
            ("demo-1.0-linux-amd64-aaaa00001111", "1.0", "linux/amd64", "0190aa11"),
            ("demo-1.1-linux-amd64-bbbb00002222", "1.1", "linux/amd64", "0190aa22"),
            ("demo-1.1-linux-arm64-cccc00003333", "1.1", "linux/arm64", "0190aa22"),
        ] {
            let artifact = Artifact {
                id: id.into(),
                name: "demo".into(),
                version: version.into(),
                platform: platform.into(),
                build: build.into(),
                ..Default::default()
            };
            records.put_artifact(artifact).await.unwrap();
        }
        (dir, records)
    }

    #[tokio::test]
    async fn a_build_is_named_by_what_no_other_id_begins_with() {
        let (_dir, records) = records().await;
        let id = async |named: &str, user: &str| build(&records, named, user).await.map(|build| build.id);
        assert_eq!(id("0190aa11", "").await.unwrap(), "0190aa11");
        assert_eq!(id("0190b", "").await.unwrap(), "0190bb33");
        assert_eq!(id("latest", "").await.unwrap(), "0190bb33");
        assert_eq!(id("latest", "ada").await.unwrap(), "0190aa11", "expected a user's own latest");
        assert_eq!(id("latest", "eve").await.unwrap(), "0190bb33", "expected the latest of all for who has none");
        let refused = id("0190a", "").await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("0190aa11, 0190aa22"), "{}", refused.message());
        for unknown in ["", "0", "0191", "0190aa110"] {
            assert_eq!(id(unknown, "").await.unwrap_err().code(), tonic::Code::NotFound, "for `{unknown}`");
        }
    }

    #[tokio::test]
    async fn an_artifact_is_named_by_its_name_version_or_part_of_its_id() {
        let (_dir, records) = records().await;
        let id =
            async |named: &str, platform: &str| artifact(&records, named, platform).await.map(|artifact| artifact.id);
        for (named, expected) in [
            ("demo-1.0-linux-amd64-aaaa00001111", "demo-1.0-linux-amd64-aaaa00001111"),
            ("demo", "demo-1.1-linux-amd64-bbbb00002222"),
            ("latest", "demo-1.1-linux-amd64-bbbb00002222"),
            ("demo-1.0", "demo-1.0-linux-amd64-aaaa00001111"),
            ("cccc", "demo-1.1-linux-arm64-cccc00003333"),
            ("demo-1.1-linux-ar", "demo-1.1-linux-arm64-cccc00003333"),
        ] {
            assert_eq!(id(named, "linux/amd64").await.unwrap(), expected, "for `{named}`");
        }
        assert_eq!(id("demo", "linux/arm64").await.unwrap(), "demo-1.1-linux-arm64-cccc00003333");
        assert!(id("demo", "").await.unwrap_err().message().contains("several artifacts"));
        assert_eq!(id("dem0", "").await.unwrap_err().code(), tonic::Code::NotFound);
    }
}
