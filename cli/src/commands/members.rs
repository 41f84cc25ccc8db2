//! `kiln farm list`, `drain`, `undrain` and `unrevoke`: a farm's members, and what its workers may do.

use std::time::SystemTime;

use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1;
use serde_json::{Value, json};

use super::time;
use crate::farm::Farm;
use crate::{Code, Error, local};
use kiln_terminal as terminal;
use kiln_terminal::{Table, fixed, flexible};

/// Drains a worker, or ends its draining.
pub(super) async fn drain(farm: &Farm, worker: String, undrain: bool) -> Result<Code, Error> {
    let request = v1::DrainWorkerRequest { worker: worker.clone(), undrain };
    farm.call(farm.farm().drain_worker(request)).await?;
    if undrain {
        terminal::say(&format!("worker `{worker}` accepts work again"));
        return Ok(Code::Success);
    }
    let status = farm.status().await?;
    let running = status.workers.iter().find(|known| known.worker == worker).map_or(0, |known| known.running);
    let rest = match running {
        0 => "it is idle".to_owned(),
        some => {
            format!(
                "{} still running; `kiln workers` shows when they have ended",
                terminal::count(some as usize, "action")
            )
        }
    };
    terminal::say(&format!("worker `{worker}` is drained; {rest}"));
    Ok(Code::Success)
}

/// Distrusts a worker or a client, and prints the artifacts that depend on what it made.
pub(super) async fn distrust(farm: &Farm, request: v1::DistrustRequest, as_json: bool) -> Result<Code, Error> {
    let (worker, client, dry_run) = (request.worker.clone(), request.client.clone(), request.dry_run);
    let found = farm.call(farm.membership().distrust(request)).await?.into_inner();
    if as_json {
        let artifacts = found.artifacts.iter().map(|artifact| {
            json!({
                "id": artifact.id,
                "tenant": artifact.tenant,
                "build": artifact.build,
                "created": time(artifact.created),
                "steps": artifact.steps,
            })
        });
        return local::print_json(&json!({
            "worker": worker,
            "client": client,
            "dry_run": dry_run,
            "artifacts": artifacts.collect::<Vec<_>>(),
            "total": found.total,
            "unreadable": found.unreadable,
            "cache_mounts": found.mounts,
        }));
    }
    let columns =
        [flexible("artifact"), flexible("tenant").optional(2), flexible("steps"), flexible("build").optional(1)];
    let rows = found.artifacts.iter().map(|artifact| {
        vec![artifact.id.clone(), artifact.tenant.clone(), artifact.steps.join(", "), artifact.build.clone()]
    });
    if !found.artifacts.is_empty() {
        local::print(Table::new(&columns).with(rows).for_stdout().as_bytes())?;
    }
    if found.total > found.artifacts.len() as u64 {
        terminal::say(&format!("these are the {} newest of {}", found.artifacts.len(), found.total));
    }
    if found.unreadable > 0 {
        let many = terminal::count(found.unreadable as usize, "artifact");
        terminal::say_warning(&format!("{many} of that time may depend on it too: the provenance cannot be read"));
    }
    let artifacts = terminal::count(found.total as usize, "artifact");
    let mounts = terminal::count(found.mounts as usize, "cache mount");
    let name = if client.is_empty() { &worker } else { &client };
    terminal::say(&if dry_run {
        format!("made with what `{name}` made: {artifacts}; to be emptied: {mounts}; nothing was changed")
    } else if worker.is_empty() {
        format!(
            "`{client}` is distrusted: what it wrote since then does not count. Emptied: {mounts}. Made with what it wrote: {artifacts}; build them \
             again. `kiln farm revoke {client}` locks it out; `kiln farm trust --client {client}` ends this"
        )
    } else {
        format!(
            "`{worker}` is distrusted: what it made since then does not count, and it gets no work. Emptied: {mounts}. Made with what it made: \
             {artifacts}; build them again. `kiln farm revoke {worker}` locks it out; `kiln farm trust {worker}` ends this"
        )
    });
    Ok(Code::Success)
}

/// Trusts a worker or a client again.
pub(super) async fn trust(farm: &Farm, request: v1::TrustRequest) -> Result<Code, Error> {
    let name = if request.client.is_empty() { request.worker.clone() } else { request.client.clone() };
    farm.call(farm.membership().trust(request)).await?;
    terminal::say(&format!("what `{name}` makes from now on counts; what it made while it was distrusted never does"));
    Ok(Code::Success)
}

/// Restores revoked access at the running farm.
pub(super) async fn unrevoke_at(farm: &Farm, name: String, serial: String) -> Result<Code, Error> {
    farm.call(farm.membership().unrevoke(v1::UnrevokeRequest { name, serial })).await?;
    terminal::say("access restored; in effect now");
    Ok(Code::Success)
}

/// Lists the members of a running farm.
pub(super) async fn list_at(farm: &Farm, as_json: bool) -> Result<Code, Error> {
    let members = farm.call(farm.membership().list(v1::ListMembersRequest {})).await?.into_inner();
    let code = print(&members, &farm.status().await?, as_json)?;
    for url in &members.unanswered {
        terminal::say_warning(&format!(
            "the coordinator at `{url}` does not answer: certificates and tokens that only it knows are not listed"
        ));
    }
    Ok(code)
}

/// Lists the coordinators of a running farm.
pub(super) async fn coordinators(farm: &Farm, as_json: bool) -> Result<Code, Error> {
    let request = v1::ListCoordinatorsRequest { only_itself: false };
    let all = farm.call(farm.coordinators().list(request)).await?.into_inner().coordinators;
    if as_json {
        return local::print_json(&kiln_doctor::coordinators::objects(&all));
    }
    local::print(kiln_doctor::coordinators::table(&all).for_stdout().as_bytes())
}

/// A row of the list.
struct Member {
    kind: &'static str,
    name: String,
    tenant: String,
    roles: String,
    state: String,
    expires: Option<Timestamp>,
    serial: String,
}

fn validity(expires: Option<Timestamp>, is_revoked: bool) -> String {
    let over = expires.and_then(|at| kiln_proto::clock::read_timestamp(&at)).is_some_and(|at| at <= SystemTime::now());
    match (is_revoked, over) {
        (true, _) => "revoked",
        (false, true) => "expired",
        (false, false) => "valid",
    }
    .to_owned()
}

fn rows(members: &v1::Members, status: &v1::FarmStatus) -> Vec<Member> {
    let has_name = |name: &String| members.revoked_names.contains(name);
    let plain = |serial: &str| serial.trim_start_matches('0').to_owned();
    let mut rows = Vec::new();
    let here = status.workers.iter().map(|worker| (worker, worker.connected));
    for (worker, is_here) in here.chain(status.away.iter().map(|worker| (worker, false))) {
        let state = match (is_here, worker.distrusted, worker.draining) {
            (true, true, _) => "distrusted",
            (true, false, true) => "draining",
            (true, false, false) => "ready",
            (false, true, _) => "away, distrusted",
            (false, false, true) => "away, draining",
            (false, false, false) => "away",
        };
        rows.push(Member {
            kind: "worker",
            name: worker.worker.clone(),
            tenant: String::new(),
            roles: String::new(),
            state: state.to_owned(),
            expires: None,
            serial: String::new(),
        });
    }
    for one in &members.certificates {
        let is_revoked = has_name(&one.name) || members.revoked_serials.contains(&plain(&one.serial));
        rows.push(Member {
            kind: "certificate",
            name: one.name.clone(),
            tenant: one.tenant.clone(),
            roles: one.roles.join(","),
            state: validity(one.expires, is_revoked),
            expires: one.expires,
            serial: one.serial.clone(),
        });
    }
    for one in &members.tokens {
        rows.push(Member {
            kind: if one.join { "join token" } else { "token" },
            name: one.name.clone(),
            tenant: one.tenant.clone(),
            roles: one.roles.join(","),
            state: validity(one.expires, has_name(&one.name)),
            expires: one.expires,
            serial: String::new(),
        });
    }
    let revoked = |name: &str, serial: &str| Member {
        kind: "revoked",
        name: name.to_owned(),
        tenant: String::new(),
        roles: String::new(),
        state: "revoked".to_owned(),
        expires: None,
        serial: serial.to_owned(),
    };
    rows.extend(members.revoked_names.iter().map(|name| revoked(name, "")));
    rows.extend(members.revoked_serials.iter().map(|serial| revoked("", serial)));
    rows.extend(members.distrusted.iter().map(|period| Member {
        kind: if period.client.is_empty() { "distrusted" } else { "distrusted client" },
        name: if period.client.is_empty() { period.worker.clone() } else { period.client.clone() },
        tenant: String::new(),
        roles: String::new(),
        state: match period.until {
            Some(until) => format!("since {} until {}", time(period.since), time(Some(until))),
            None => format!("since {}", time(period.since)),
        },
        expires: None,
        serial: String::new(),
    }));
    rows
}

/// Prints the list.
pub(super) fn print(members: &v1::Members, status: &v1::FarmStatus, as_json: bool) -> Result<Code, Error> {
    let rows = rows(members, status);
    if as_json {
        return local::print_json(&rows.iter().map(object).collect());
    }
    if rows.is_empty() {
        terminal::say("no workers, certificates or tokens");
        return Ok(Code::Success);
    }
    let columns = [
        fixed("kind"),
        flexible("name"),
        fixed("state"),
        flexible("roles"),
        flexible("tenant"),
        fixed("valid until"),
        flexible("serial"),
    ];
    let rows = rows.into_iter().map(|row| {
        vec![row.kind.to_owned(), row.name, row.state, row.roles, row.tenant, time(row.expires), row.serial]
    });
    local::print(Table::new(&columns).with(rows).for_stdout().as_bytes())
}

fn object(row: &Member) -> Value {
    json!({
        "kind": row.kind,
        "name": row.name,
        "tenant": row.tenant,
        "roles": row.roles.split(',').filter(|role| !role.is_empty()).collect::<Vec<_>>(),
        "state": row.state,
        "expires": row.expires.map(|at| time(Some(at))),
        "serial": row.serial,
    })
}
