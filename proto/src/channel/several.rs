//! The coordinators of a farm that has several, as a client knows them: which there are, and which is used.
//!
//! Invariant: calls keep to one coordinator for as long as it works.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::addresses::{self, addresses};
use super::member::{Live, Member};
use super::{Access, Error, endpoint};

/// How long a coordinator may take to answer before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// How long the addresses of names are used before the names are looked up again.
const FRESH: Duration = Duration::from_secs(30);
/// How long looking up a name may take.
const LOOK_UP: Duration = Duration::from_secs(3);

/// All coordinators of a farm.
#[derive(Debug)]
pub(super) struct Several {
    urls: Vec<String>,
    access: Access,
    state: Mutex<State>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    members: Vec<Arc<Member>>,
    /// Which one is used.
    current: usize,
    looked_up: Instant,
}

impl State {
    /// The one that is used.
    #[expect(
        clippy::indexing_slicing,
        reason = "every address has at least one member, and `current` is a place among them"
    )]
    fn used(&self) -> &Arc<Member> {
        &self.members[self.current]
    }

    /// The place so many after the one that is used, in a circle.
    fn after(&self, places: usize) -> usize {
        self.current.saturating_add(places).checked_rem(self.members.len()).unwrap_or(0)
    }
}

impl Several {
    /// The coordinators at these addresses; `None` if there is only one. `first` says which is tried first.
    ///
    /// # Errors
    /// If an address is invalid, or the credentials cannot be read.
    pub(super) async fn find(urls: &str, access: &Access, first: usize) -> Result<Option<Self>, Error> {
        let urls = addresses(urls)?;
        for url in &urls {
            endpoint(url, access)?;
        }
        let members = look_up(&urls, &[]).await;
        if members.len() < 2 {
            return Ok(None);
        }
        let state =
            State { current: first.checked_rem(members.len()).unwrap_or(0), members, looked_up: Instant::now() };
        let (state, connecting) = (Mutex::new(state), tokio::sync::Mutex::default());
        Ok(Some(Self { urls, access: access.clone(), state, connecting }))
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is used.
    pub(super) fn current(&self) -> Arc<Member> {
        self.state().used().clone()
    }

    /// Uses this one from now on.
    fn settle(&self, member: &Arc<Member>) {
        let mut state = self.state();
        if let Some(place) = state.members.iter().position(|known| Arc::ptr_eq(known, member)) {
            state.current = place;
        }
    }

    /// Uses the one after this one, if this one is used.
    pub(super) fn leave(&self, member: &Arc<Member>) {
        let mut state = self.state();
        if Arc::ptr_eq(state.used(), member) {
            state.current = state.after(1);
        }
    }

    /// All of them from one on, those that failed just now last.
    pub(super) fn order(self: &Arc<Self>, first: Option<usize>) -> Vec<Arc<Member>> {
        let (mut members, is_stale) = {
            let state = self.state();
            let first = first.and_then(|first| first.checked_rem(state.members.len())).unwrap_or(state.current);
            let mut members = state.members.clone();
            members.rotate_left(first);
            (members, state.looked_up.elapsed() > FRESH)
        };
        members.sort_by_key(|member| member.is_avoided());
        if is_stale && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.state().looked_up = Instant::now();
            let several = self.clone();
            runtime.spawn(async move { several.look_up_again().await });
        }
        members
    }

    async fn look_up_again(&self) {
        let before = self.state().members.clone();
        let found = look_up(&self.urls, &before).await;
        let mut state = self.state();
        let used = state.used().clone();
        state.current = found.iter().position(|member| Arc::ptr_eq(member, &used)).unwrap_or(0);
        (state.members, state.looked_up) = (found, Instant::now());
    }

    /// A coordinator with a connection, other than those that were tried: the one that is used, or else the first that
    /// answers, which is used from then on. `None` if all were tried.
    ///
    /// # Errors
    /// If none answers.
    pub(super) async fn working(&self, tried: &[Arc<Member>]) -> Result<Option<(Arc<Member>, Live)>, Error> {
        if let Some(found) = self.connected(tried) {
            return Ok(Some(found));
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(found) = self.connected(tried) {
            return Ok(Some(found));
        }
        self.look_up_again().await;
        let candidates = {
            let state = self.state();
            let mut members = state.members.clone();
            members.rotate_left(state.current);
            members.retain(|member| !is_among(member, tried));
            members
        };
        if candidates.is_empty() {
            return Ok(None);
        }
        let (member, live) = self.first_of(candidates).await?;
        self.settle(&member);
        Ok(Some((member, live)))
    }

    fn connected(&self, tried: &[Arc<Member>]) -> Option<(Arc<Member>, Live)> {
        let mut state = self.state();
        let places = (0..state.members.len()).map(|offset| state.after(offset));
        let mut members = places.filter_map(|place| Some((place, state.members.get(place)?.clone())));
        // Only the next one: a connection to another may have broken without anybody having noticed.
        let (place, member) = members.find(|(_, member)| !is_among(member, tried))?;
        let live = member.live()?;
        state.current = place;
        Some((member, live))
    }

    /// The first of these that answers. Each gets a head start over the next, so one that is silent costs that.
    async fn first_of(&self, candidates: Vec<Arc<Member>>) -> Result<(Arc<Member>, Live), Error> {
        let (mut waiting, mut attempts) = (candidates.into_iter(), FuturesUnordered::new());
        let mut failures = Vec::new();
        loop {
            if let Some(next) = waiting.next() {
                attempts.push(async move { (next.connect(&self.access).await, next) });
            }
            tokio::select! {
                ended = attempts.next() => match ended {
                    Some((Ok(live), member)) => return Ok((member, live)),
                    Some((Err(error), _)) => failures.push(error),
                    None => return Err(Error::of_all(failures)),
                },
                () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
            }
        }
    }

    /// Every coordinator, and whether it answers.
    pub(super) async fn states(&self) -> Vec<(String, Result<(), Error>)> {
        let members = self.state().members.clone();
        let look = |member: Arc<Member>| async move {
            let found = member.connect(&self.access).await;
            (member.to_string(), found.map(drop))
        };
        futures::future::join_all(members.into_iter().map(look)).await
    }
}

fn is_among(member: &Arc<Member>, members: &[Arc<Member>]) -> bool {
    members.iter().any(|one| Arc::ptr_eq(one, member))
}

/// The coordinators at these addresses: one for each address, or for each of the machines that a name stands for.
/// Those that are known already remain.
async fn look_up(urls: &[String], known: &[Arc<Member>]) -> Vec<Arc<Member>> {
    let mut members: Vec<Arc<Member>> = Vec::new();
    for url in urls {
        let mut found = machines(url).await;
        if found.is_empty() {
            found.push(None);
        }
        for ip in found {
            let same = known.iter().find(|member| member.url == *url && member.ip == ip).cloned();
            members.push(same.unwrap_or_else(|| Arc::new(Member::new(url.clone(), ip))));
        }
    }
    members
}

/// The machines that an address's name stands for, if it is several.
async fn machines(url: &str) -> Vec<Option<std::net::SocketAddr>> {
    let Some(place) = addresses::place(url) else { return Vec::new() };
    if place.host.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    let looking = tokio::net::lookup_host((place.host.as_str(), place.port));
    let Ok(Ok(found)) = tokio::time::timeout(LOOK_UP, looking).await else { return Vec::new() };
    several_machines(found.collect()).into_iter().map(Some).collect()
}

/// Of a name's addresses, those of different machines. A machine may have one of each family, so only those of one family
/// count: the first, which the system prefers.
fn several_machines(found: Vec<std::net::SocketAddr>) -> Vec<std::net::SocketAddr> {
    let (v4, v6): (Vec<_>, Vec<_>) = found.iter().partition(|address| address.is_ipv4());
    if v4.len() < 2 && v6.len() < 2 {
        return Vec::new();
    }
    let mut of_first = if found.first().is_some_and(|first| first.is_ipv4()) { v4 } else { v6 };
    // A stable order, so that every client asks the same machine for the same blob.
    of_first.sort();
    of_first.dedup();
    of_first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_several_addresses_of_one_family_is_several_machines() {
        let of = |all: &[&str]| {
            let parsed = all.iter().map(|one| one.parse().unwrap()).collect();
            several_machines(parsed).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(of(&[]).is_empty() && of(&["10.0.0.1:1"]).is_empty());
        assert!(of(&["[::1]:1", "127.0.0.1:1"]).is_empty(), "expected one machine");
        assert_eq!(of(&["10.0.0.2:1", "10.0.0.1:1"]), ["10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(of(&["10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:1", "[fd00::2]:1"]), ["10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(of(&["[fd00::1]:1", "[fd00::2]:1", "10.0.0.1:1"]), ["[fd00::1]:1", "[fd00::2]:1"]);
    }
}
