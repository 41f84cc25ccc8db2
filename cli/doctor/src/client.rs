//! What a client needs on its machine.

use std::path::Path;
use std::process::{Command, Stdio};

use kiln_args as args;
use kiln_proto::v1::Check;
use kiln_proto::v1::check::State;
use kiln_settings::File;

use crate::{lacks, ok};

/// With less free space, trees and artifacts are soon not kept.
const SCARCE_BYTES: u64 = 1 << 30;

/// Completes what is known of the farm by the user's configuration, and says what is wrong with that.
pub(crate) fn configuration(farm: &mut args::Farm, project: &Path) -> Check {
    const NAME: &str = "configuration";
    const WHY: &str = "it says which farm is used, with which credentials and flags";
    let Some(path) = File::path() else {
        let found = "there is no directory for it";
        return lacks(NAME, State::Warning, found, WHY, "set `KILN_CONFIG` to the path of a file");
    };
    let shown = path.display().to_string();
    if let Err(error) = kiln_settings::apply(farm, project).and_then(|()| kiln_settings::check_flags(&path)) {
        let fix = match &error {
            kiln_settings::Error::Command { command, .. } => command.clone(),
            _ => format!("${{EDITOR:-vi}} {shown}"),
        };
        return lacks(NAME, State::Missing, kiln_terminal::chain(&error).replace('\n', ": "), WHY, fix);
    }
    match std::fs::metadata(&path) {
        Err(_) => ok(NAME, format!("none (`{shown}`)"), WHY),
        Ok(about) if !kiln_system::is_private(&about) => {
            let found = format!("`{shown}` can be read or written by others");
            lacks(NAME, State::Warning, found, WHY, format!("chmod go-rwx {shown}"))
        }
        Ok(_) => ok(NAME, shown, WHY),
    }
}

/// The client itself.
pub(crate) fn look(project: &Path) -> Vec<Check> {
    let version = env!("CARGO_PKG_VERSION");
    let protocol = kiln_proto::protocol::PROTOCOL;
    let why = "client, coordinator and workers may be one protocol version apart";
    let mut checks = vec![ok("kiln", format!("{version}, protocol {protocol}, {}", std::env::consts::OS), why), git()];
    let cache = kiln_system::cache().unwrap_or_else(|| project.to_owned());
    checks.extend(space(&cache));
    checks
}

fn git() -> Check {
    const WHY: &str = "the commit and the ignored files of a project come from it";
    let ran = Command::new("git").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    match ran.ok().filter(|output| output.status.success()) {
        Some(output) => {
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            ok("git", text.strip_prefix("git version ").unwrap_or(&text), WHY)
        }
        None => lacks("git", State::Warning, "not found in PATH", WHY, "apt-get install git"),
    }
}

/// Space for what the client remembers. Only Unix says how much there is.
fn space(directory: &Path) -> Option<Check> {
    let free = free(directory)?;
    let why = "hashes of sources, and the caches of a farm inside this command, are kept there";
    let found = format!("{} free for `{}`", kiln_terminal::size(free), directory.display());
    Some(match free < SCARCE_BYTES {
        false => ok("disk", found, why),
        true => lacks(
            "disk",
            State::Warning,
            found,
            why,
            format!("du -xh --max-depth=2 {} | sort -h | tail", directory.display()),
        ),
    })
}

#[cfg(unix)]
fn free(directory: &Path) -> Option<u64> {
    let disk = directory.ancestors().find_map(|above| rustix::fs::statvfs(above).ok())?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
