//! Which compiler a call is for.

use std::ffi::{OsStr, OsString};

use crate::call::Call;
use crate::invocation::{Files, Invocation};
use crate::refusal::Refusal;
use crate::{c, paths, rust};

/// The name of the program that stands in for compilers. Launchers (CMake's, cargo's) call it with the compiler as its first
/// argument.
const LAUNCHER: &[u8] = b"kiln-call";

/// What a call reads and writes, or why it must run in its step.
///
/// `invocation.program` is `argv[0]`: a compiler's name, or `kiln-call` followed by the compiler as the first argument.
pub fn understand(invocation: &Invocation, files: &dyn Files) -> Result<Call, Refusal> {
    let (program, arguments) = compiler(invocation)?;
    if let Some(driver) = c::driver(&program) {
        return c::understand(driver, program, arguments, invocation, files);
    }
    if paths::file_name(&program) == b"rustc" {
        return rust::understand(program, arguments, invocation, files);
    }
    Err(Refusal::Program { program: program.to_string_lossy().into_owned() })
}

/// Whether a program of this name is a compiler whose calls are understood.
pub fn is_compiler(name: &OsStr) -> bool {
    c::driver(name).is_some()
}

/// The compiler and its arguments.
fn compiler(invocation: &Invocation) -> Result<(OsString, &[OsString]), Refusal> {
    if paths::file_name(&invocation.program) != LAUNCHER {
        return Ok((invocation.program.clone(), &invocation.arguments));
    }
    match invocation.arguments.split_first() {
        Some((compiler, arguments)) => Ok((compiler.clone(), arguments)),
        None => Err(Refusal::Program { program: invocation.program.to_string_lossy().into_owned() }),
    }
}
