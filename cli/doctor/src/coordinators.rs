//! The coordinators of a farm, as each says of itself when it is asked.

use std::time::{Duration, SystemTime};

use kiln_proto::v1::check::State;
use kiln_proto::v1::coordinator::Seat;
use kiln_proto::v1::{Check, Coordinator};
use kiln_proto::{clock, protobuf::Timestamp};
use kiln_terminal::{Table, fixed, flexible};
use serde_json::{Value, json};

use crate::{lacks, ok};

/// Clocks that differ by more are wrong.
const SMALL: Duration = Duration::from_secs(5);

const WHY: &str = "when one coordinator is gone, another leads within seconds";

fn seat(of: &Coordinator) -> &'static str {
    match of.seat() {
        Seat::Leads => "leads",
        Seat::Follows => "follows",
        Seat::Vacant => "knows of no leader",
        Seat::Unspecified => "does not answer",
    }
}

fn at(time: Option<&Timestamp>) -> Option<SystemTime> {
    time.and_then(clock::read_timestamp)
}

/// How far a clock is from this machine's, to a second, and whether it is ahead; none if it is not known.
fn apart(of: &Coordinator, now: SystemTime) -> Option<(Duration, bool)> {
    let theirs = at(of.time.as_ref())?;
    Some(match theirs.duration_since(now) {
        Ok(ahead) => (ahead, true),
        Err(behind) => (behind.duration(), false),
    })
}

fn clock_of(of: &Coordinator, now: SystemTime) -> String {
    match apart(of, now) {
        None => String::new(),
        Some((apart, _)) if apart.as_secs() == 0 => "as here".to_owned(),
        Some((apart, is_ahead)) => {
            format!("{} {}", kiln_terminal::duration(apart), if is_ahead { "ahead" } else { "behind" })
        }
    }
}

fn since(of: &Coordinator) -> String {
    of.since.map(|time| clock::rfc3339(&Timestamp { nanos: 0, ..time })).unwrap_or_default()
}

/// What is wrong with one of them, beside what it says: its identities are others than those of the one that leads.
fn trouble(of: &Coordinator, all: &[Coordinator]) -> String {
    let leader = all.iter().find(|one| one.seat() == Seat::Leads);
    let differs = |leader: &Coordinator| of.seat() != Seat::Unspecified && of.identities != leader.identities;
    match leader {
        _ if !of.trouble.is_empty() => of.trouble.clone(),
        Some(leader) if differs(leader) => {
            "its farm directory has another authority or other tokens than that of the coordinator that leads"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// A table for people.
pub fn table(all: &[Coordinator]) -> Table {
    let now = SystemTime::now();
    let columns = [
        flexible("address"),
        fixed("state"),
        fixed("since"),
        fixed("clock"),
        flexible("version").optional(1),
        flexible("trouble"),
    ];
    let rows = all.iter().map(|one| {
        let (address, version) = (one.address.clone(), one.version.clone());
        vec![address, seat(one).to_owned(), since(one), clock_of(one, now), version, trouble(one, all)]
    });
    Table::new(&columns).with(rows)
}

/// The same for scripts.
pub fn objects(all: &[Coordinator]) -> Value {
    let object = |one: &Coordinator| {
        json!({
            "name": one.name,
            "address": one.address,
            "version": one.version,
            "state": match one.seat() {
                Seat::Leads => "leads",
                Seat::Follows => "follows",
                Seat::Vacant => "vacant",
                Seat::Unspecified => "silent",
            },
            "since": one.since.map(|_| since(one)),
            "time": one.time.map(|time| clock::rfc3339(&Timestamp { nanos: 0, ..time })),
            "leader": one.leader,
            "called": one.called,
            "trouble": trouble(one, all),
        })
    };
    all.iter().map(object).collect()
}

/// What is well and what is not, of a farm that has several.
pub(crate) fn checks(all: &[Coordinator]) -> Vec<Check> {
    let now = SystemTime::now();
    let check = |one: &Coordinator| {
        let found = format!("`{}` {}", one.address, seat(one));
        let wrong = trouble(one, all);
        if !wrong.is_empty() {
            let fix = format!("journalctl -u kiln-coordinator # on the machine of {}", one.address);
            return lacks("coordinators", State::Warning, format!("{found}: {wrong}"), WHY, fix);
        }
        match apart(one, now) {
            Some((apart, _)) if apart > SMALL => {
                let found = format!("the clock of `{}` is {} this machine's", one.address, clock_of(one, now));
                lacks(
                    "coordinators",
                    State::Warning,
                    found,
                    WHY,
                    "timedatectl set-ntp true # on the machine whose clock is wrong",
                )
            }
            _ => ok("coordinators", format!("{found}, since {}, with version {}", since(one), one.version), WHY),
        }
    };
    if all.len() < 2 { Vec::new() } else { all.iter().map(check).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinator(address: &str, seat: Seat) -> Coordinator {
        Coordinator {
            address: address.to_owned(),
            seat: seat.into(),
            time: Some(clock::now()),
            identities: "same".to_owned(),
            ..Coordinator::default()
        }
    }

    #[test]
    fn what_is_wrong_with_one_of_several_is_said_of_that_one() {
        let mut all = vec![
            coordinator("http://a", Seat::Leads),
            coordinator("http://b", Seat::Follows),
            Coordinator { trouble: "no answer".to_owned(), ..coordinator("http://c", Seat::Unspecified) },
            Coordinator { identities: "other".to_owned(), ..coordinator("http://d", Seat::Follows) },
        ];
        let late = SystemTime::now() - Duration::from_secs(3_600);
        all.push(Coordinator { time: Some(clock::timestamp(late)), ..coordinator("http://e", Seat::Follows) });
        let found = checks(&all);
        let is_ok: Vec<bool> = found.iter().map(|check| check.state() == State::Ok).collect();
        assert_eq!(is_ok, [true, true, false, false, false]);
        for (check, words) in found[2..].iter().zip(["no answer", "other tokens", "behind"]) {
            assert!(check.found.contains(words), "{}", check.found);
        }
        assert!(checks(&all[..1]).is_empty(), "the only one is seen by whoever calls it");
    }
}
