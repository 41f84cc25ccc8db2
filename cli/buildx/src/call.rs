//! `--call`: what is done instead of a build.

use crate::csv::{boolean, fields};
use crate::error::{Error, hint};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// A build.
    #[default]
    Build,
    /// The rules are checked.
    Check,
    /// Arguments, secrets and the like are listed.
    Outline,
    /// Stages are listed.
    Targets,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Call {
    /// What is done.
    pub method: Method,
    /// Whether the answer is JSON.
    pub json: bool,
    /// Whether findings are no failure.
    pub ignore_status: bool,
}

/// Reads a value.
pub(crate) fn read(text: &str) -> Result<Call, Error> {
    const FLAG: &str = "--call";
    let mut call = Call::default();
    for field in fields(text).map_err(|reason| Error::value(FLAG, reason))? {
        match field.split_once('=') {
            None | Some(("type", _)) => {
                call.method = match field.strip_prefix("type=").unwrap_or(&field) {
                    "build" | "" => Method::Build,
                    "check" | "lint" => Method::Check,
                    "outline" => Method::Outline,
                    "targets" => Method::Targets,
                    other => {
                        let known = ["build", "check", "outline", "targets"];
                        let hint = hint(other, known);
                        let reason = format!("unknown method `{other}`{hint}; expected one of {}", known.join(", "));
                        return Err(Error::value(FLAG, reason));
                    }
                };
            }
            Some(("format", "json")) => call.json = true,
            Some(("format", "text" | "")) => call.json = false,
            Some(("ignorestatus", value)) => call.ignore_status = boolean(value).unwrap_or(false),
            Some((name, _)) => {
                return Err(Error::value(FLAG, format!("unknown field `{name}`; expected `format=json`")));
            }
        }
    }
    Ok(call)
}
