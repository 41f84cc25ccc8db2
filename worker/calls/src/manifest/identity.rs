//! What identifies a call before its inputs are known.

use std::os::unix::ffi::OsStrExt;

use kiln_proto::digest::{Digest, DigestFunction, Hasher};

use crate::call::Call;

/// The version of what is hashed, and of the rules by which calls are understood. A change makes every manifest miss.
const VERSION: &[u8] = b"kiln.calls/1";

/// What a compiler's programs are: the digest over its driver and the programs and plugins that the driver runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toolchain(pub Digest);

/// The key of a call's manifest: a digest over its program, arguments, working directory, environment, source path and toolchain.
///
/// Every part is hashed with its length before it, so that no two calls are hashed as the same bytes.
pub fn key(call: &Call, toolchain: &Toolchain) -> Digest {
    let mut hasher = DigestFunction::Sha256.hasher();
    part(&mut hasher, VERSION);
    part(&mut hasher, toolchain.0.to_string().as_bytes());
    part(&mut hasher, call.program.as_bytes());
    part(&mut hasher, call.directory.as_os_str().as_bytes());
    part(&mut hasher, call.source.as_os_str().as_bytes());
    count(&mut hasher, call.arguments.len());
    for argument in &call.arguments {
        part(&mut hasher, argument.as_bytes());
    }
    count(&mut hasher, call.environment.len());
    for (name, value) in &call.environment {
        part(&mut hasher, name.as_bytes());
        part(&mut hasher, value.as_bytes());
    }
    hasher.finish()
}

fn count(hasher: &mut Hasher, count: usize) {
    hasher.update(&(count as u64).to_le_bytes());
}

fn part(hasher: &mut Hasher, bytes: &[u8]) {
    count(hasher, bytes.len());
    hasher.update(bytes);
}
