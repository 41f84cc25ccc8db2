//! Which of Docker's commands is meant.

use crate::error::{Error, hint};

/// Docker's own options before the command, and whether a value follows.
const OPTIONS: [(&str, bool); 12] = [
    ("--config", true),
    ("--context", true),
    ("-c", true),
    ("--host", true),
    ("-H", true),
    ("--log-level", true),
    ("-l", true),
    ("--debug", false),
    ("-D", false),
    ("--tls", false),
    ("--tlsverify", false),
    ("--builder", true),
];

/// A command of `kiln docker`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meant<'a> {
    /// A build, with what follows.
    Build(&'a [String]),
    /// Help.
    Help,
}

/// The command among the arguments.
pub(crate) fn meant(arguments: &[String]) -> Result<Meant<'_>, Error> {
    let mut rest = skip_options(arguments);
    let mut above = Vec::new();
    loop {
        let Some((first, after)) = rest.split_first() else { return Ok(Meant::Help) };
        match (above.last().copied(), first.as_str()) {
            (_, "--help" | "-h") | (None, "help") => return Ok(Meant::Help),
            (None, "build") | (Some("buildx" | "image" | "builder"), "build") | (Some("buildx"), "b") => {
                return Ok(Meant::Build(after));
            }
            (None, "buildx" | "image" | "builder") => {
                above.push(first.as_str());
                rest = skip_options(after);
            }
            (under, other) => {
                let command = under.map_or_else(|| other.to_owned(), |under| format!("{under} {other}"));
                let near = hint(other, ["build", "buildx"]);
                let bake = "; write a script with one `kiln docker build` for each target";
                let hint = if other == "bake" { bake.to_owned() } else { near };
                return Err(Error::Command { command, hint });
            }
        }
    }
}

/// What follows Docker's own options, which mean nothing here.
fn skip_options(mut arguments: &[String]) -> &[String] {
    while let Some((first, after)) = arguments.split_first() {
        let name = first.split_once('=').map_or(first.as_str(), |(name, _)| name);
        let Some((_, takes)) = OPTIONS.iter().find(|(known, _)| *known == name) else { break };
        let skipped = usize::from(*takes && !first.contains('='));
        arguments = after.get(skipped..).unwrap_or_default();
    }
    arguments
}
