//! `kiln init`: writes the plan down as `kiln.toml`.

use std::io::Write;
use std::path::Path;

use kiln_core::plan::to_kiln_toml;

use crate::local::Project;
use crate::{Code, Error, terminal};

pub(super) fn run(dir: &Path) -> Result<Code, Error> {
    let project = Project::open(dir)?;
    let path = project.dir.join("kiln.toml");
    let there =
        || Error::Usage(format!("`{}` is there already; expected none; edit it, or remove it first", path.display()));
    if path.symlink_metadata().is_ok() {
        return Err(there());
    }
    let plan = project.plan(&[], &[], None)?;
    let write = |source| Error::Write { path: path.clone(), source };
    let mut file = match std::fs::File::create_new(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(there()),
        result => result.map_err(write)?,
    };
    file.write_all(to_kiln_toml(&plan).as_bytes()).map_err(write)?;
    for note in &plan.notes {
        terminal::say(&terminal::harmless(&format!("note: {note}")));
    }
    let steps = terminal::count(plan.steps.len(), "step");
    let artifacts = terminal::count(plan.artifacts.len(), "artifact");
    terminal::say(&format!("wrote `{}`: {steps}, {artifacts}", path.display()));
    Ok(Code::Success)
}
