//! `--attest`, `--provenance` and `--sbom`.

use crate::csv::{boolean, pairs};
use crate::error::{Error, hint};

/// How much a provenance tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Where it was built, and from what.
    Min,
    /// The commands and arguments too.
    Max,
}

/// The attestations of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attestations {
    /// The provenance.
    pub provenance: Option<Mode>,
    /// Whether the provenance was asked for, and not only the default: then it accompanies files too.
    pub provenance_wanted: bool,
    /// Whether the bill of materials is attached.
    pub sbom: bool,
}

impl Attestations {
    /// The default; `off` without any.
    pub(crate) fn new(off: bool) -> Self {
        Self { provenance: (!off).then_some(Mode::Min), provenance_wanted: false, sbom: false }
    }

    /// Reads the value of a flag. For `--provenance` and `--sbom`, `kind` is what it is about.
    pub(crate) fn read(&mut self, flag: &'static str, kind: Option<&str>, text: &str) -> Result<(), Error> {
        let invalid = |reason: String| Error::value(flag, reason);
        let simple = kind.and_then(|_| boolean(text));
        let fields = if simple.is_some() { Vec::new() } else { pairs(text).map_err(invalid)? };
        let get = |name: &str| fields.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let kind =
            kind.or(get("type")).ok_or_else(|| invalid("`type` is required: `provenance` or `sbom`".to_owned()))?;
        let disabled = match get("disabled") {
            None => !simple.unwrap_or(true),
            Some(text) => boolean(text).ok_or_else(|| invalid(format!("invalid value `{text}` of `disabled`")))?,
        };
        match kind {
            "provenance" => {
                const FIELDS: [&str; 8] =
                    ["type", "mode", "disabled", "inline-only", "builder-id", "version", "reproducible", "filename"];
                known(&fields, &FIELDS, flag)?;
                let mode = match get("mode") {
                    None | Some("min" | "") => Mode::Min,
                    Some("max") => Mode::Max,
                    Some(other) => return Err(invalid(format!("unknown mode `{other}`; expected `min` or `max`"))),
                };
                if let Some(field) = ["builder-id", "version"].into_iter().find(|field| get(field).is_some()) {
                    return Err(Error::refused(flag, format!("`{field}`: the farm says who built, as SLSA 1")));
                }
                self.provenance = (!disabled).then_some(mode);
                self.provenance_wanted = !disabled && get("inline-only").is_none();
            }
            "sbom" => {
                known(&fields, &["type", "disabled", "generator"], flag)?;
                if get("generator").is_some() {
                    let reason = "`generator`: the farm makes the bill of materials itself; use `--sbom=true`";
                    return Err(Error::refused(flag, reason));
                }
                self.sbom = !disabled;
            }
            other => {
                let hint = hint(other, ["provenance", "sbom"]);
                return Err(invalid(format!("unknown type `{other}`{hint}; expected `provenance` or `sbom`")));
            }
        }
        Ok(())
    }
}

fn known(fields: &[(String, String)], known: &[&str], flag: &'static str) -> Result<(), Error> {
    match fields.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(Error::value(flag, format!("unknown field `{name}`{}", hint(name, known.iter().copied()))))
        }
        None => Ok(()),
    }
}
