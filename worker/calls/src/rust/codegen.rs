//! Options for code generation: `-C NAME=VALUE`.

use std::path::Path;

use super::line::Line;
use crate::call::Role;
use crate::paths::of_the_system;
use crate::refusal::Refusal;

/// Options that change the result and name no file. Source: `rustc -C help` of 1.95.
const PASS: [&str; 40] = [
    "code-model",
    "codegen-units",
    "collapse-macro-debuginfo",
    "control-flow-guard",
    "debug-assertions",
    "debuginfo",
    "default-linker-libraries",
    "dwarf-version",
    "embed-bitcode",
    "force-frame-pointers",
    "force-unwind-tables",
    "inline-threshold",
    "instrument-coverage",
    "jump-tables",
    "link-arg",
    "link-args",
    "link-dead-code",
    "link-self-contained",
    "linker-features",
    "linker-flavor",
    "linker-plugin-lto",
    "lto",
    "metadata",
    "no-prepopulate-passes",
    "no-redzone",
    "no-stack-check",
    "no-vectorize-loops",
    "no-vectorize-slp",
    "opt-level",
    "overflow-checks",
    "panic",
    "prefer-dynamic",
    "profile-generate",
    "relocation-model",
    "relro-level",
    "rpath",
    "soft-float",
    "strip",
    "symbol-mangling-version",
    "target-feature",
];

/// Takes one `-C` into account.
pub(super) fn read(line: &mut Line, text: &str) -> Result<(), Refusal> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let option = || format!("-C {text}");
    match (name.replace('_', "-").as_str(), value) {
        ("extra-filename", value) => line.extra_filename = value.unwrap_or_default().to_owned(),
        ("incremental", _) => return Err(Refusal::Incremental { option: option() }),
        ("help", _) => return Err(Refusal::Information { option: option() }),
        // The last one counts.
        ("target-cpu", Some(cpu)) => line.native = cpu == "native",
        ("profile-use", Some(path)) => line.reads(Role::Profile, Path::new(path)),
        // Debugging information beside the object, in files that are named after units of code generation.
        ("split-debuginfo", Some("off")) => {}
        ("split-debuginfo" | "save-temps", _) => return Err(Refusal::ExtraFiles { option: option() }),
        ("linker", Some(linker)) => {
            if linker.contains('/') && !of_the_system(&line.absolute(Path::new(linker))) {
                return Err(Refusal::OtherPrograms { option: option() });
            }
        }
        (name, _) if PASS.contains(&name) => {}
        _ => return Err(Refusal::UnknownOption { option: option() }),
    }
    Ok(())
}
