//! What rustc says of its outputs while it is still at work.
//!
//! With `--json=artifacts` it writes a line to standard error for each output that is there. cargo starts whatever depends on the crate at
//! the line about its metadata. Source: "JSON Output", section "Artifact notifications", of the rustc book.

use std::path::Path;

use crate::call::{Call, Details, Output, OutputKind};

/// What a compiler has announced so far, up to what its caller waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced<'a> {
    /// The bytes of standard error up to the end of the line at which the caller goes on.
    pub said: usize,
    /// The outputs that are announced in them.
    pub outputs: Vec<&'a Output>,
}

/// What the caller of a compiler goes on with before the call has ended; none if what was said to standard error so far does not announce it.
pub fn announced<'a>(call: &'a Call, stderr: &[u8]) -> Option<Announced<'a>> {
    let Details::Rust(details) = &call.details else { return None };
    if !details.announces_artifacts {
        return None;
    }
    let (mut said, mut outputs) = (0_usize, Vec::new());
    for line in stderr.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        said = said.saturating_add(line.len());
        let Some(output) = output(call, line) else { continue };
        outputs.push(output);
        if output.kind == OutputKind::Metadata {
            return Some(Announced { said, outputs });
        }
    }
    None
}

/// The output that a line announces.
fn output<'a>(call: &'a Call, line: &[u8]) -> Option<&'a Output> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    line.get("emit")?.as_str()?;
    let path = Path::new(line.get("artifact")?.as_str()?);
    call.outputs.iter().find(|output| output.path == path || output.absolute == path)
}
