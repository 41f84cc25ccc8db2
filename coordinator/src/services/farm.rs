//! `kiln.v1.Farm`: the farm's workers, and their administration.

use kiln_proto::v1;
use kiln_proto::v1::farm_server;
use tonic::{Request, Response, Status};

use kiln_auth::audit::Subject;
use kiln_auth::{Identity, Role};
use kiln_execution::ExecutionHandle;
use kiln_planner::plan::Toolchains;
use kiln_signing::Signer;
use kiln_state::Current;
use kiln_store::Health;

/// Serves the farm's administration.
#[derive(Debug)]
pub struct Farm {
    execution: ExecutionHandle,
    toolchains: Current<Toolchains>,
    tool_caches: kiln_toolcaches::Options,
    pages: (kiln_web::Options, kiln_web::Links),
    signing: (Option<Signer>, String),
}

impl Farm {
    /// Administers this execution of a farm with these images for languages, caches of build tools, web pages, and what signs, with the
    /// farm's name in provenance.
    pub fn new(
        execution: ExecutionHandle,
        toolchains: Current<Toolchains>,
        tool_caches: kiln_toolcaches::Options,
        pages: (kiln_web::Options, kiln_web::Links),
        signing: (Option<Signer>, String),
    ) -> Self {
        Self { execution, toolchains, tool_caches, pages, signing }
    }
}

/// A store that other coordinators share, for `kiln doctor`.
fn store(name: &str, health: Health) -> v1::Check {
    use v1::check::State;
    let (state, found) = match health {
        Health::Up => (State::Ok, "in use".to_owned()),
        Health::NoWrites(why) => (State::Warning, format!("it refuses writes: {why}")),
        Health::Away(why) => (State::Warning, format!("it does not respond: {why}")),
    };
    let fix = if state == State::Ok {
        ""
    } else {
        "look at the coordinator's log, and at the store itself; it is used again by itself"
    };
    v1::Check {
        name: name.to_owned(),
        state: state.into(),
        found,
        why: "coordinators share results and blobs through it; without it the farm builds on with its own disk"
            .to_owned(),
        fix: fix.to_owned(),
    }
}

fn published(key: &kiln_attest::Key) -> v1::SigningKey {
    v1::SigningKey {
        id: key.public.id().to_owned(),
        pem: key.public.pem(),
        created: key.created.map(kiln_proto::clock::timestamp),
        not_after: key.not_after.map(kiln_proto::clock::timestamp),
        algorithm: key.public.algorithm().name().to_owned(),
    }
}

/// Says whose queue it is as far as a caller may know.
fn named(queue: &mut v1::Queue, caller: &Identity) {
    queue.of_another_tenant = queue.tenant != caller.tenant;
    if queue.of_another_tenant && !caller.roles.contains(&Role::FarmAdmin) {
        queue.tenant.clear();
    }
}

#[tonic::async_trait]
impl farm_server::Farm for Farm {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::FarmStatus>, Status> {
        let toolchains = self.toolchains.get().pairs().into_iter().collect();
        let cache_port = self.tool_caches.listen.map_or(0, |address| address.port().into());
        let cache_url = self.tool_caches.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let identity = kiln_auth::identity(&request);
        let cache_writes = kiln_toolcaches::writes(&identity, false);
        let cache_writes_scopes = kiln_toolcaches::writes(&identity, true);
        let mut status = self.execution.farm().await?;
        status.queues.iter_mut().for_each(|queue| named(queue, &identity));
        Ok(Response::new(v1::FarmStatus {
            toolchains,
            cache_port,
            cache_url,
            cache_writes,
            cache_writes_scopes,
            time: Some(kiln_proto::clock::now()),
            stores: self.execution.shared_stores().into_iter().map(|(name, health)| store(name, health)).collect(),
            ..status
        }))
    }

    async fn open_pages(
        &self,
        request: Request<v1::OpenPagesRequest>,
    ) -> Result<Response<v1::OpenPagesResponse>, Status> {
        let (options, links) = &self.pages;
        let Some(address) = options.listen else {
            return Err(Status::failed_precondition(
                "this coordinator serves no web pages; start it with `--web-listen`, such as `--web-listen 0.0.0.0:8982`",
            ));
        };
        let url = options.url.as_ref().map(ToString::to_string).unwrap_or_default();
        let made = links.make(kiln_auth::identity(&request)).await;
        let path =
            made.map_err(|error| Status::unavailable(format!("cannot make a link to the pages ({error}); try again")))?;
        Ok(Response::new(v1::OpenPagesResponse { path, port: address.port().into(), url }))
    }

    async fn keys(&self, _request: Request<v1::KeysRequest>) -> Result<Response<v1::KeysResponse>, Status> {
        let (Some(signer), builder) = &self.signing else {
            return Err(Status::failed_precondition(
                "the farm signs nothing: its coordinators have no signing key in common; see `--signing-key` of the coordinator",
            ));
        };
        let keys = signer.published().iter().map(published).collect();
        Ok(Response::new(v1::KeysResponse { keys, builder: builder.clone() }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let subject = Subject::of(&request);
        let v1::DrainWorkerRequest { worker, undrain } = request.into_inner();
        subject.is(format!("{} worker {worker}", if undrain { "undrain" } else { "drain" }));
        self.execution.drain(worker, !undrain).await?;
        Ok(Response::new(v1::DrainWorkerResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_administers_the_farm_learns_the_names_of_other_tenants() {
        let of = |tenant: &str, roles: &[Role]| {
            let mut queue = v1::Queue { tenant: "shop".to_owned(), ..v1::Queue::default() };
            let roles = roles.iter().copied().collect();
            named(&mut queue, &Identity { tenant: tenant.to_owned(), roles, ..Identity::anonymous() });
            (queue.tenant, queue.of_another_tenant)
        };
        assert_eq!(of("shop", &[Role::Builder]), ("shop".to_owned(), false));
        assert_eq!(of("bank", &[Role::Builder, Role::Admin]), (String::new(), true));
        assert_eq!(of("", &[Role::FarmAdmin]), ("shop".to_owned(), true));
    }
}
