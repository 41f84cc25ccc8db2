//! `kiln farm`: a farm's members, which the farm or its directory is asked for.

use std::ops::ControlFlow;

use kiln_proto::v1;

use super::members;
use crate::args::{self, Membership};
use crate::farm::Farm;
use crate::interrupts::Interrupts;
use crate::{Code, Error};
use kiln_terminal as terminal;

pub(super) async fn run(farm: &args::Farm, args: Membership, interrupts: &Interrupts) -> Result<Code, Error> {
    if let Membership::Use { name, json } = &args {
        let Some(name) = name else {
            println!("{}", kiln_settings::shown(std::path::Path::new("."), *json)?);
            return Ok(Code::Success);
        };
        let flags = kiln_settings::choose(name)?;
        terminal::say(&format!("`{name}` is the farm that is used from now on"));
        flags.iter().for_each(|line| terminal::say(line));
        return Ok(Code::Success);
    }
    let asked = match on_directory(farm, args)? {
        ControlFlow::Break(code) => return Ok(code),
        ControlFlow::Continue(asked) => asked,
    };
    super::briefly(farm, interrupts, async |farm| match asked {
        Membership::Revoke { name, serial, unknown, .. } => revoke_at(farm, name, serial, unknown).await,
        Membership::Unrevoke { name, serial, .. } => {
            members::unrevoke_at(farm, name.unwrap_or_default(), serial.unwrap_or_default()).await
        }
        Membership::List { json, .. } => members::list_at(farm, json).await,
        Membership::Coordinators { json } => members::coordinators(farm, json).await,
        Membership::Keys { json } => super::verify::keys(farm, json).await,
        Membership::Drain { worker } => members::drain(farm, worker, false).await,
        Membership::Undrain { worker } => members::drain(farm, worker, true).await,
        Membership::Distrust { worker, client, since, dry_run, unknown, json } => {
            let since = Some(kiln_proto::clock::timestamp(since));
            let (worker, client) = (worker.unwrap_or_default(), client.unwrap_or_default());
            members::distrust(farm, v1::DistrustRequest { worker, since, dry_run, unknown, client }, json).await
        }
        Membership::Trust { worker, client } => {
            let (worker, client) = (worker.unwrap_or_default(), client.unwrap_or_default());
            members::trust(farm, v1::TrustRequest { worker, client }).await
        }
        #[allow(unreachable_patterns)]
        _ => Err(Error::Usage("a running farm is not asked for that".to_owned())),
    })
    .await
}

#[cfg(feature = "embedded")]
fn on_directory(farm: &args::Farm, args: Membership) -> Result<ControlFlow<Code, Membership>, Error> {
    super::founding::perform(farm, args)
}

#[cfg(not(feature = "embedded"))]
fn on_directory(_farm: &args::Farm, args: Membership) -> Result<ControlFlow<Code, Membership>, Error> {
    match args {
        Membership::OnDirectory(words) => {
            let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            Err(Error::Usage(format!(
                "`kiln farm {name}` works on a farm's directory; this `kiln` is a client only. Use the one on the machine of the \
                 farm's coordinator, or ask a running farm: `kiln farm list`, `coordinators`, `keys`, `drain`, `undrain`, `distrust`, `trust`, `revoke`, `unrevoke`"
            )))
        }
        asked => Ok(ControlFlow::Continue(asked)),
    }
}

async fn revoke_at(farm: &Farm, name: Option<String>, serial: Option<String>, unknown: bool) -> Result<Code, Error> {
    let request = v1::RevokeRequest { name: name.unwrap_or_default(), serial: serial.unwrap_or_default(), unknown };
    farm.call(farm.membership().revoke(request)).await?;
    terminal::say("revoked; in effect now");
    Ok(Code::Success)
}
