//! Resumes builds that an earlier run of the coordinator started.

use kiln_proto::clock;
use kiln_proto::v1::{Build, Status as BuildStatus, SubmitRequest, event};
use tonic::Status;

use super::{Active, Builds, Unfinished, named_user, run};
use kiln_build_secrets::Secrets;

impl Builds {
    /// Resumes the builds that have not ended.
    pub(super) async fn resume_all(&self) -> Result<(), kiln_records::Error> {
        let unfinished = self.shared.records.unfinished().await?;
        // Concurrently, so that they share a commit.
        let events = unfinished.iter().map(|(build, _)| self.shared.records.resume_events(&build.id));
        let events = futures::future::try_join_all(events).await?;
        for ((build, request), events) in unfinished.into_iter().zip(events) {
            // Before the services start: whoever asks for the build finds it in progress.
            let place = self.shared.places.clone().try_acquire_owned().ok();
            let active = self.activate(build, events, Secrets::default(), place);
            tokio::spawn(self.clone().resume(active, request));
        }
        Ok(())
    }

    async fn resume(self, active: Active, request: SubmitRequest) {
        let build = active.build.lock().clone();
        if self.shared.settings.unfinished == Unfinished::Interrupt && !request.detached {
            return self.interrupt(&active).await;
        }
        tracing::info!(build = build.id, "resuming an unfinished build");
        match self.plan(&request).await {
            Ok(planned) => {
                active.build.lock().steps.clear();
                self.start(active, request, named_user(&build.user), planned, true);
            }
            Err(status) => self.give_up(&active, &status).await,
        }
    }

    async fn give_up(&self, active: &Active, why: &Status) {
        let why = format!("the coordinator restarted and could not resume the build: {}", why.message());
        self.end(active, BuildStatus::FarmFailed, why).await;
    }

    /// The client that followed the build ended together with the coordinator, so nobody waits for it.
    async fn interrupt(&self, active: &Active) {
        let why = "interrupted: the `kiln` that ran the farm ended before the build did; build again to continue";
        self.end(active, BuildStatus::Cancelled, why.to_owned()).await;
    }

    /// Ends a build that does not run again.
    async fn end(&self, active: &Active, status: BuildStatus, message: String) {
        let build: Build = {
            let mut build = active.build.lock();
            build.set_status(status);
            build.message = message;
            build.finished = Some(clock::now());
            build.clone()
        };
        tracing::info!(build = build.id, why = build.message, "ended an unfinished build");
        let last = event::Event::BuildFinished(run::finished(&build));
        // Without a plan it is not known whom the project itself wants to be told.
        let notices = self.shared.notices.as_ref();
        let calls = match notices {
            Some(notices) => notices.of(&build, None, &[]).await,
            None => Vec::new(),
        };
        match self.shared.records.finish(&build, (&active.events, last), &calls).await {
            Ok(()) => notices.into_iter().for_each(|notices| notices.take(&calls)),
            Err(error) => tracing::error!(%error, build = build.id, "cannot record that a build ended"),
        }
        self.forget(&build.id).await;
    }
}
