//! Looks up builds: what is recorded, plus the current state of running ones.

use kiln_proto::v1::{self, Build};
use tonic::Status;

use super::{Builds, named, unread};
use kiln_records::brief;

/// Builds in one answer if the request has no limit.
const LISTED: usize = 100;
/// Maximum builds in one answer.
const MAX_LISTED: usize = 10_000;

/// The number of builds that a limit means.
fn listed(limit: u32) -> usize {
    if limit == 0 { LISTED } else { (limit as usize).min(MAX_LISTED) }
}

impl Builds {
    /// A build by its id, a unique prefix of it, or `latest`.
    pub async fn get(&self, id: &str) -> Result<Build, Status> {
        self.get_for(id, "").await
    }

    /// Like [`get`](Self::get), but `latest` means the latest build of this user, if there is one.
    pub async fn get_for(&self, id: &str, user: &str) -> Result<Build, Status> {
        let build = match self.active(id) {
            Some(build) => build,
            None => {
                let found = named::build(&self.shared.records, id, user).await?;
                self.active(&found.id).unwrap_or(found)
            }
        };
        let shells = self.shared.records.shells(&build.id).await.map_err(unread)?;
        let notifications = self.shared.records.notifications(&build.id).await.map_err(unread)?;
        Ok(Build { shells, notifications, ..build })
    }

    /// A running build.
    fn active(&self, id: &str) -> Option<Build> {
        self.shared.active.lock().get(id).map(|active| active.build.lock().clone())
    }

    /// The id of the build that was submitted with a request id. `NOT_FOUND` if there is none.
    pub async fn of_request(&self, request_id: &str) -> Result<String, Status> {
        let found = self.shared.records.request(request_id).await.map_err(unread)?;
        found.ok_or_else(|| Status::not_found(format!("no build was submitted with the request id `{request_id}`")))
    }

    /// The artifact that an id, part of an id, a name or `latest` refers to.
    pub async fn artifact(&self, named: &str, platform: &str) -> Result<v1::Artifact, Status> {
        named::artifact(&self.shared.records, named, platform).await
    }

    /// The latest builds, newest first; 100 where `limit` is 0.
    pub async fn list(&self, limit: u32) -> Result<Vec<Build>, Status> {
        let builds = self.shared.records.builds(listed(limit)).await.map_err(unread)?;
        let mut shells = self.shared.records.all_shells().await.map_err(unread)?;
        let mut all = Vec::with_capacity(builds.len());
        for build in builds {
            let build = self.active(&build.id).unwrap_or(build);
            let notifications = self.shared.records.notifications(&build.id).await.map_err(unread)?;
            all.push(Build { shells: shells.remove(&build.id).unwrap_or_default(), notifications, ..build });
        }
        Ok(all)
    }

    /// The builds that a request asks for, newest first, and the id before which there may be more.
    pub async fn find(&self, request: &v1::ListRequest) -> Result<v1::ListResponse, Status> {
        let found = self.shared.records.search(request, listed(request.limit)).await;
        let (found, more) = found.map_err(unread)?;
        let mut builds = Vec::with_capacity(found.len());
        for build in found {
            let active = self.active(&build.id);
            if request.brief {
                builds.push(active.as_ref().map_or(build, brief));
                continue;
            }
            let whole = match active {
                Some(active) => active,
                None => self.shared.records.build(&build.id).await.map_err(unread)?.unwrap_or(build),
            };
            let shells = self.shared.records.shells(&whole.id).await.map_err(unread)?;
            builds.push(Build { shells, ..whole });
        }
        Ok(v1::ListResponse { builds, more: more.unwrap_or_default() })
    }

    /// Requests that a build be cancelled; a finished one stays as it is.
    pub async fn cancel(&self, id: &str) -> Result<Build, Status> {
        let build = self.get(id).await?;
        if let Some(active) = self.shared.active.lock().get(&build.id) {
            active.cancel.cancel();
        }
        Ok(build)
    }

    /// Requests that all running builds of a user be cancelled. Returns them as they were.
    pub fn cancel_all(&self, user: &str) -> Vec<Build> {
        let active = self.shared.active.lock();
        let of_user = active.values().filter(|active| active.build.lock().user == user);
        of_user
            .map(|active| {
                active.cancel.cancel();
                active.build.lock().clone()
            })
            .collect()
    }
}
