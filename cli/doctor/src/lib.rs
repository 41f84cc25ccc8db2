//! `kiln doctor`: what this machine, the farm and its workers have and lack, and how each is corrected.
//!
//! Invariant: it looks and changes nothing. Whatever cannot be looked at is a finding, and never ends the command.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod client;
pub mod coordinators;
mod farm;
mod registries;
mod report;
mod workers;

use kiln_args as args;
use kiln_proto::v1::Check;
use kiln_proto::v1::check::State;
pub use report::Section;

/// Finds out what this machine has for running steps. A `kiln` without a farm in it has none.
pub type Machine = fn() -> Result<Vec<Check>, String>;

/// Something that works.
fn ok(name: &str, found: impl Into<String>, why: &str) -> Check {
    Check { name: name.into(), state: State::Ok.into(), found: found.into(), why: why.into(), fix: String::new() }
}

/// Something that does not, and what corrects it.
fn lacks(name: &str, state: State, found: impl Into<String>, why: &str, fix: impl Into<String>) -> Check {
    Check { name: name.into(), state: state.into(), found: found.into(), why: why.into(), fix: fix.into() }
}

/// Looks at everything that was asked for, and prints it. Answers whether nothing that is needed is missing.
pub async fn run(asked: args::Doctor, mut farm: args::Farm, machine: Option<Machine>) -> bool {
    let mut sections = Vec::new();
    let configuration = client::configuration(&mut farm, &asked.dir);
    let url = farm.farm.clone().map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
    let status = match &url {
        None => None,
        Some(url) => {
            let (checks, status) = farm::look(url, &farm.access).await;
            sections.push(Section { about: format!("the farm at {url}"), checks });
            status
        }
    };
    match &asked.worker {
        Some(name) => {
            sections.retain(|section| !report::is_well(std::slice::from_ref(section)));
            sections.push(workers::one(name, status.as_ref()));
        }
        None => {
            sections.extend(status.iter().flat_map(workers::all));
            let mut own = vec![configuration];
            own.extend(client::look(&asked.dir));
            own.extend(registries::look(&asked.dir, url.is_none()).await);
            sections.insert(0, Section { about: "this machine".into(), checks: own });
            if url.is_none() || asked.machine {
                sections.insert(1, steps_here(machine).await);
            }
        }
    }
    report::print(&sections, asked.json);
    report::is_well(&sections)
}

/// Whether steps can run here.
async fn steps_here(machine: Option<Machine>) -> Section {
    let about = "steps on this machine".to_owned();
    let why = "without a farm, steps run on this machine";
    let Some(machine) = machine else {
        let found = "this `kiln` is a client only";
        let fix = "kiln login https://farm.example:8980";
        return Section { about, checks: vec![lacks("farm", State::Missing, found, why, fix)] };
    };
    let looked = tokio::task::spawn_blocking(machine).await.unwrap_or_else(|error| Err(error.to_string()));
    let checks = looked.unwrap_or_else(|reason| {
        vec![lacks("sandbox", State::Missing, reason, why, "kiln login https://farm.example:8980")]
    });
    Section { about, checks }
}
