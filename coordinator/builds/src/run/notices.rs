//! What webhooks are told of a build's end: who they are is the matter of `kiln-notify`; the ends of failed steps' output are read here.

use kiln_notify::{MAX_STEPS, Tail};
use kiln_proto::digest::Digest;
use kiln_proto::reapi;
use kiln_proto::v1::step_state::Phase;
use kiln_proto::v1::{Build, NotificationQueued, StepState};

use super::Work;

/// Bytes of a step's output that are read from its end.
const READ: u64 = 4 << 10;

/// The calls that are to tell of a build's end.
pub(super) async fn of(work: &Work, build: &Build) -> Vec<NotificationQueued> {
    let Some(notices) = &work.notices else { return Vec::new() };
    let project = work.plan.notify.as_ref();
    let mut tails = Vec::new();
    if project.is_some() || notices.has_hooks() {
        for step in build.steps.iter().filter(|step| step.phase() == Phase::Failed).take(MAX_STEPS) {
            tails.extend(tail(work, step).await);
        }
    }
    notices.of(build, project, &tails).await
}

/// The end of what a step printed on standard error, or else on standard output.
async fn tail(work: &Work, state: &StepState) -> Option<Tail> {
    let (step, done) = (state.step.clone()?, state.finished.as_ref()?);
    let digest = done.stderr_digest.as_ref().or(done.stdout_digest.as_ref())?;
    Some(Tail { step, output: end(work, digest).await? })
}

async fn end(work: &Work, digest: &reapi::Digest) -> Option<Vec<u8>> {
    let digest = Digest::from_wire(work.function, digest).ok()?;
    let mut pieces = work.stores.blobs.read(&digest, digest.size.saturating_sub(READ), Some(READ)).await.ok()?;
    let mut data = Vec::new();
    while let Some(piece) = futures::StreamExt::next(&mut pieces).await {
        data.extend_from_slice(&piece.ok()?);
    }
    Some(data)
}
