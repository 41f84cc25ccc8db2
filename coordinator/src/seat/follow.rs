//! The life of one of several coordinators: it follows whoever leads, and leads when it is its turn.

use std::sync::Arc;
use std::time::Duration;

use kiln_ledger::Pages;
use kiln_peers::{Others, Peers, Relay};
use kiln_replicas::{Lead, Replicas, Standing};

use super::held::{Held, Home};
use super::{Base, Chair, Coordinators, Seat, Seats, Term};
use crate::tenants::Journals;

/// How long a coordinator leaves the lease to others after it could not begin its term.
const PAUSE: Duration = Duration::from_secs(5);
/// How long calls that were passed on may continue when this coordinator stops: then their callers are told to go to another one, and not
/// cut off.
const LAST: Duration = Duration::from_secs(1);

/// Takes part in a farm, until the process ends.
pub(crate) fn join(base: Base, replicas: Replicas, peers: Peers, ledger: Pages) -> (Seats, Coordinators) {
    let chair = Chair::new(Seat::Vacant);
    let seats = Seats { seat: chair.0.subscribe(), trouble: replicas.trouble() };
    let others = Others::new(peers.clone(), replicas.clone());
    let (me, authenticator) = (replicas.me().clone(), base.authenticator.clone());
    let coordinators = Coordinators::new(me, seats.clone(), authenticator, Some(others.clone()));
    let base = Base { others: Some(others.clone()), ..base };
    tokio::spawn(Member { base, replicas, peers, others, ledger, chair }.live());
    (seats, coordinators)
}

/// How often the others are asked who leads while this coordinator cannot find it out.
const HEAR: Duration = Duration::from_secs(1);

/// Who leads according to the others.
#[derive(Debug)]
struct Heard {
    leader: String,
    relay: Relay,
}

struct Member {
    base: Base,
    replicas: Replicas,
    peers: Peers,
    others: Others,
    ledger: Pages,
    chair: Chair,
}

impl Member {
    async fn live(self) {
        let mut standing = self.replicas.standing();
        loop {
            let now = standing.borrow_and_update().clone();
            match now {
                Standing::Vacant => {
                    self.chair.take(Seat::Vacant);
                    let mut heard = None;
                    let changed = tokio::select! {
                        changed = standing.changed() => changed,
                        () = self.hear(&mut heard) => Ok(()),
                    };
                    if let Some(Heard { relay, .. }) = heard {
                        self.chair.take(Seat::Vacant);
                        relay.end();
                    }
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
                Standing::Follows { leader, term } => {
                    let relay = self.relay(&leader.address);
                    self.chair.take(Seat::Follows(relay.clone()));
                    let is_led =
                        |now: &Standing| matches!(now, Standing::Follows { term: other, .. } if *other == term);
                    let ended = tokio::select! {
                        changed = standing.wait_for(|now| !is_led(now)) => changed.is_err(),
                        () = self.leaves() => true,
                    };
                    self.chair.take(Seat::Vacant);
                    relay.end();
                    self.base.common.elsewhere.forget();
                    if ended {
                        return;
                    }
                    continue;
                }
                Standing::Leads(lead) => {
                    self.lead(lead).await;
                    self.chair.take(Seat::Vacant);
                }
            }
            if standing.changed().await.is_err() {
                return;
            }
        }
    }

    fn relay(&self, leader: &str) -> Relay {
        Relay::to(leader, &self.peers, self.replicas.clone())
    }

    /// For as long as this coordinator cannot find out who leads, it asks the others, and passes calls on to the one that they name. Its own
    /// lease, if it had one, is over: what they say changes nothing but that. Ends when the coordinator stops.
    async fn hear(&self, heard: &mut Option<Heard>) {
        let trouble = self.replicas.trouble();
        loop {
            let is_in_trouble = trouble.borrow().is_some();
            let leader = if is_in_trouble { self.others.leader().await } else { None };
            if heard.as_ref().map(|heard| &heard.leader) != leader.as_ref() {
                let before = std::mem::take(heard);
                *heard = leader.map(|leader| Heard { relay: self.relay(&leader), leader });
                match &heard {
                    Some(Heard { leader, relay }) => {
                        tracing::warn!(leader, "passing calls on to the coordinator that leads according to others");
                        self.chair.take(Seat::Follows(relay.clone()));
                    }
                    None => self.chair.take(Seat::Vacant),
                }
                if let Some(Heard { relay, .. }) = before {
                    relay.end();
                }
            }
            tokio::select! {
                () = tokio::time::sleep(HEAR) => {}
                () = self.leaves() => return,
            }
        }
    }

    /// Leads for as long as the lease lasts.
    async fn lead(&self, lead: Lead) {
        let epoch = lead.term.epoch;
        self.chair.take(Seat::Begins);
        // On a network of its own, a farm has a clock of its own, which other threads do not have.
        let home = if self.base.config.agreement.is_some() { Ok(Home::here()) } else { Home::own() };
        let home = match home {
            Ok(home) => home,
            Err(error) => {
                tracing::error!(%error, "cannot begin to lead");
                return self.pause().await;
            }
        };
        let base = Base { stopping: self.base.stopping.child_token(), ..self.base.clone() };
        let stopping = base.stopping.clone();
        let (register, term, fsync) = (self.replicas.register().clone(), lead.term.clone(), base.config.fsync);
        let journals = Journals::Common { register, term, fsync };
        let opening = home.spawn(async move { Term::open(&base, journals).await });
        let opened = tokio::select! {
            opened = opening => opened.unwrap_or_else(|error| Err(error.into())),
            () = lead.over.cancelled() => {
                tracing::warn!(epoch, "the lease ended before this coordinator had begun to lead");
                return;
            }
        };
        match opened {
            Ok(term) => {
                self.ledger.leads(Some(&lead.term)).await;
                if let Err(error) = self.ledger.take_over(&self.base.config.data_dir).await {
                    tracing::warn!(
                        error,
                        "cannot take over which workers joined when this coordinator was alone; the next term tries again"
                    );
                }
                let held = Held::leased(term, &home, lead.clone());
                self.chair.take(Seat::Leads(Arc::new(held)));
                lead.over.cancelled().await;
                tracing::warn!(epoch, "this coordinator leads no more");
                self.chair.take(Seat::Vacant);
                stopping.cancel();
                drop(home);
                self.ledger.leads(None).await;
            }
            Err(error) => {
                tracing::error!(
                    epoch,
                    error = format!("{error:#}"),
                    "cannot begin to lead; leaving it to another coordinator"
                );
                stopping.cancel();
                drop(home);
                self.pause().await;
            }
        }
    }

    /// Completes when the calls in progress have had their time after this coordinator was asked to stop.
    async fn leaves(&self) {
        self.base.stopping.cancelled().await;
        tokio::time::sleep(LAST).await;
    }

    async fn pause(&self) {
        self.chair.take(Seat::Vacant);
        self.replicas.resign().await;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => self.replicas.resume(),
            () = self.base.stopping.cancelled() => {}
        }
    }
}
