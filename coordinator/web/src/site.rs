//! What all requests share.

use tokio_util::sync::CancellationToken;

use crate::access::Doors;
use crate::calls::Calls;
use crate::layers::Layers;
use crate::live::{Builds, Feeds, Render};
use crate::log::Indexes;
use crate::outputs::Ends;
use crate::profiles::Profiles;
use kiln_auth::Identity;

/// What all requests share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) doors: Doors,
    pub(crate) calls: Calls,
    pub(crate) feeds: Feeds,
    pub(crate) builds: Builds,
    pub(crate) indexes: Indexes,
    pub(crate) layers: Layers,
    pub(crate) profiles: Profiles,
    pub(crate) ends: Ends,
    stopping: CancellationToken,
}

impl Site {
    /// A site whose builds are shown like this.
    pub(crate) fn new(doors: Doors, calls: Calls, stopping: CancellationToken, render: Render) -> Self {
        let (feeds, indexes) = (Feeds::default(), Indexes::default());
        Self {
            doors,
            calls,
            feeds,
            builds: Builds::new(render),
            indexes,
            layers: Layers::default(),
            profiles: Profiles::default(),
            ends: Ends::default(),
            stopping,
        }
    }

    /// Completes when a visitor may no longer see what they are being shown, or the coordinator shuts down.
    pub(crate) fn end(&self, identity: &Identity) -> impl Future<Output = ()> + Send + use<> {
        let (end, stopping) = (self.doors.end(identity), self.stopping.clone());
        async move {
            tokio::select! {
                _ = end => {}
                () = stopping.cancelled() => {}
            }
        }
    }
}
