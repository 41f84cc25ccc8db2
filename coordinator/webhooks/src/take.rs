//! Pushes as the coordinator that leads is handed them.

use kiln_auth::audit::Subject;
use kiln_proto::v1;
use kiln_proto::v1::deliveries_server;
use kiln_proto::v1::take_delivery_response::Taken as Told;
use tonic::{Request, Response, Status};

use super::Webhooks;
use super::deliveries::{Job, Key, Taken};
use super::forge::Push;

/// A push as it is sent.
pub(super) fn request(hook: &str, key: Key, push: Push) -> v1::TakeDeliveryRequest {
    let Push { addresses, path, reference, commit, user, default_branch } = push;
    let (hook, key) = (hook.to_owned(), key.bytes().to_vec());
    v1::TakeDeliveryRequest { hook, key, addresses, path, reference, commit, user, default_branch }
}

#[tonic::async_trait]
impl deliveries_server::Deliveries for Webhooks {
    async fn take(
        &self,
        request: Request<v1::TakeDeliveryRequest>,
    ) -> Result<Response<v1::TakeDeliveryResponse>, Status> {
        let subject = Subject::of(&request);
        let v1::TakeDeliveryRequest { hook: name, key, addresses, path, reference, commit, user, default_branch } =
            request.into_inner();
        subject.is(format!("push of commit {commit} to webhook {name}"));
        let key = Key::from_bytes(&key).ok_or_else(|| Status::invalid_argument("invalid key: expected 32 bytes"))?;
        let differs = |what: String| {
            Status::failed_precondition(format!(
                "the coordinator that leads the farm {what}; give all coordinators the same `--webhooks`, and deliver it again"
            ))
        };
        let hook = self.shared.hooks.get().get(&name).cloned();
        let hook = hook.ok_or_else(|| differs(format!("has no webhook `{name}`")))?;
        let push = Push { addresses, path, reference, commit, user, default_branch };
        let repository = push.addresses.iter().find(|address| hook.builds_repository(address)).cloned();
        let repository =
            repository.ok_or_else(|| differs(format!("builds none of `{}`", push.addresses.join("`, `"))))?;
        hook.builds_reference(&push).map_err(|words| differs(format!("does not build this push: {words}")))?;
        let job = Job { hook: name, push, repository };
        let taken = self.shared.deliveries.take(key, job.clone()).await.map_err(|error| {
            tracing::error!(%error, "cannot record a push");
            Status::unavailable("cannot record the push")
        })?;
        let taken = match taken {
            Taken::New => {
                self.begin(key, job);
                Told::New
            }
            Taken::Before => Told::Before,
            Taken::Full => Told::Full,
        };
        Ok(Response::new(v1::TakeDeliveryResponse { taken: taken.into() }))
    }
}
