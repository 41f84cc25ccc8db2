//! An invocation as its open pages show it.
//!
//! Invariant: a section is rendered when what it shows has changed, and at no other look.

use kiln_proto::v1::{Invocation, InvocationStatus};

use super::actions::{self, Known};
use super::tail::Tail;
use super::{details, fill, get, timing};
use crate::answer::Failure;
use crate::live::{Drawn, Patch};
use crate::outputs::Ends;
use crate::pages::Guest;
use crate::profiles::Profiles;

/// What pages were told last, with what it was made of.
#[derive(Debug, Default)]
pub(super) struct View {
    tail: Tail,
    known: Known,
    /// All that follows from the invocation itself.
    told: Option<(Invocation, [Drawn; 2])>,
    /// Its actions.
    ran: Option<((u64, bool), Drawn)>,
}

impl View {
    /// Everything that a page shows, as it is now.
    pub(super) async fn look(
        &mut self,
        ends: &Ends,
        profiles: &Profiles,
        guest: &Guest,
        id: &str,
    ) -> Result<Vec<Drawn>, Failure> {
        let invocation = shown(get(guest, id).await?);
        let is_running = invocation.status() == InvocationStatus::InvocationRunning;
        self.tail.read(guest, id, !is_running).await?;
        self.known.read(guest, id).await?;
        let [details, timing] = match self.told.take() {
            Some((before, drawn)) if before == invocation => self.told.insert((before, drawn)).1.clone(),
            _ => {
                let drawn = told(ends, profiles, guest, invocation.clone()).await;
                self.told.insert((invocation, drawn)).1.clone()
            }
        };
        let state = self.known.state();
        let actions = match self.ran.take() {
            Some((before, drawn)) if before == state => self.ran.insert((before, drawn)).1.clone(),
            _ => {
                let markup = actions::section(ends, guest, id, &self.known).await;
                self.ran.insert((state, Patch::replace("actions", markup).into())).1.clone()
            }
        };
        let end = (!is_running).then(|| Patch::End.into());
        Ok([details, actions, timing].into_iter().chain(self.tail.drawn()).chain(end).collect())
    }
}

/// An invocation without what counts its events and bytes, which no page shows.
fn shown(invocation: Invocation) -> Invocation {
    Invocation { last_event: 0, printed_bytes: 0, kept_bytes: 0, ..invocation }
}

async fn told(ends: &Ends, profiles: &Profiles, guest: &Guest, mut invocation: Invocation) -> [Drawn; 2] {
    fill(ends, guest, &mut invocation).await;
    let timing = timing::section(profiles, guest, &invocation).await;
    [Patch::replace("invocation", details::of(&invocation)).into(), Patch::replace("timing", timing).into()]
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;

    use futures::{Stream, stream};
    use kiln_auth::{Caller, Identity};
    use kiln_proto::v1;
    use kiln_proto::v1::invocations_server::{Invocations, InvocationsServer};
    use parking_lot::Mutex;
    use tonic::{Request, Response, Status};

    use super::*;
    use crate::access::Visitor;
    use crate::calls::Calls;

    /// What there is of an invocation.
    #[derive(Debug, Default)]
    struct All {
        invocation: Invocation,
        actions: Vec<v1::RemoteAction>,
        printed: Vec<u8>,
    }

    /// A farm that knows one invocation.
    #[derive(Debug, Clone, Default)]
    struct Told(Arc<Mutex<All>>);

    #[tonic::async_trait]
    impl Invocations for Told {
        async fn list(
            &self,
            _: Request<v1::ListInvocationsRequest>,
        ) -> Result<Response<v1::ListInvocationsResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        async fn get(&self, _: Request<v1::GetInvocationRequest>) -> Result<Response<Invocation>, Status> {
            Ok(Response::new(self.0.lock().invocation.clone()))
        }

        async fn actions(
            &self,
            request: Request<v1::InvocationActionsRequest>,
        ) -> Result<Response<v1::InvocationActionsResponse>, Status> {
            let from = request.into_inner().from;
            let actions: Vec<_> = self.0.lock().actions.iter().skip(from as usize).cloned().collect();
            let next = from + actions.len() as u64;
            Ok(Response::new(v1::InvocationActionsResponse { actions, next, is_cut: false }))
        }

        async fn note(&self, _: Request<v1::NoteRequest>) -> Result<Response<v1::NoteResponse>, Status> {
            Err(Status::unimplemented(""))
        }

        type LogStream = Pin<Box<dyn Stream<Item = Result<v1::InvocationLogPart, Status>> + Send>>;

        async fn log(&self, request: Request<v1::InvocationLogRequest>) -> Result<Response<Self::LogStream>, Status> {
            let printed = self.0.lock().printed.clone();
            let (from, next) = (request.into_inner().from, printed.len() as u64);
            let part = v1::InvocationLogPart { data: printed[from as usize..].to_vec(), next };
            Ok(Response::new(Box::pin(stream::iter((from < next).then_some(Ok(part))))))
        }
    }

    fn guest(told: &Told) -> Guest {
        let visitor = Visitor { identity: Identity::anonymous(), has_session: false, caller: Caller::default() };
        Guest::new(&visitor, &Calls::new(InvocationsServer::new(told.clone())))
    }

    /// How many of these were not among those before.
    fn new(before: &[Drawn], now: &[Drawn]) -> usize {
        now.iter().filter(|one| !before.iter().any(|other| other.is_same(one))).count()
    }

    #[tokio::test]
    async fn nothing_is_rendered_while_nothing_changes_and_else_only_what_has_changed() {
        let told = Told::default();
        told.0.lock().invocation.status = InvocationStatus::InvocationRunning.into();
        told.0.lock().printed = b"a line\n".to_vec();
        let (guest, ends, profiles) = (guest(&told), Ends::default(), Profiles::default());
        let (mut view, mut rendered, mut before) = (View::default(), Vec::new(), Vec::new());
        let mut look = async |changed: &dyn Fn(&mut All)| {
            changed(&mut told.0.lock());
            let now = view.look(&ends, &profiles, &guest, "id").await.unwrap();
            rendered.push(new(&before, &now));
            before = now;
        };
        look(&|_| {}).await;
        for _ in 0..20 {
            look(&|_| {}).await;
        }
        look(&|all| all.actions.push(v1::RemoteAction::default())).await;
        look(&|all| all.printed.extend(b"another\n")).await;
        // An event of which a page shows nothing.
        look(&|all| all.invocation.last_event += 1).await;
        // The details, and what depends on them.
        look(&|all| all.invocation.command = "test".to_owned()).await;
        // The sections and the line at first; then nothing; then one action, one line, nothing, two sections.
        assert_eq!(rendered[..1], [4]);
        assert_eq!(rendered[1..21], [0; 20]);
        assert_eq!(rendered[21..], [1, 1, 0, 2]);
    }
}
