//! `kiln cancel`: cancels one build, or all builds of a user.

use kiln_proto::v1;

use super::builds;
use crate::farm::Farm;
use crate::{Code, Error};
use kiln_terminal as terminal;

pub(super) async fn run(
    farm: &Farm,
    build: Option<String>,
    user: Option<String>,
    request_id: Option<String>,
) -> Result<Code, Error> {
    match (build, user, request_id) {
        (Some(build), _, _) => builds::cancel(farm, &build).await,
        (None, Some(user), _) => all(farm, user).await,
        (None, None, Some(request_id)) => builds::cancel_request(farm, &request_id).await,
        (None, None, None) => Err(Error::Usage("specify a build, or a user with `--user`".to_owned())),
    }
}

async fn all(farm: &Farm, user: String) -> Result<Code, Error> {
    let cancelled =
        farm.call(farm.builds().cancel_all(v1::CancelAllRequest { user: user.clone() })).await?.into_inner();
    if cancelled.builds.is_empty() {
        terminal::say(&format!("`{user}` has no running builds"));
    }
    for build in cancelled.builds {
        terminal::say(&format!("build {} ({}): cancelling", build.id, build.project));
    }
    Ok(Code::Success)
}
