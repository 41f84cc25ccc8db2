//! Names of the platform properties that an action may require and a worker may offer.
//!
//! Source for the first three: REAPI's `platform.md`. Names that are not in this list are refused.

use crate::root;

/// `linux`.
pub const OS_FAMILY: &str = "OSFamily";
/// `x86-64` or `arm-a64`.
pub const ISA: &str = "ISA";
/// An image reference, for the Docker executor.
pub const CONTAINER_IMAGE: &str = "container-image";
/// os-release's `ID:VERSION_ID`, such as `debian:12`.
pub const OS: &str = "kiln.os";
/// Such as `glibc:2.36`.
pub const LIBC: &str = "kiln.libc";
/// Such as `x86-64-v3`; a worker offers its own level and all below.
pub const CPU_LEVEL: &str = "kiln.cpu-level";
/// The CPU's name with a digest of its features, for results that only work on the CPU they were made on.
pub const CPU: &str = "kiln.cpu";
/// Fingerprint of the worker's environment.
pub const ENVIRONMENT: &str = "kiln.environment";
/// `on`: an emulated worker, which only runs actions that require this property.
pub const EMULATED: &str = "kiln.emulated";
/// CPUs to reserve, in decimal, such as `2` or `0.5`. Reserved rather than matched.
pub const CPUS: &str = "kiln.cpus";
/// Bytes of memory to reserve. Reserved rather than matched.
pub const MEMORY: &str = "kiln.memory";
/// The version of the rules by which a worker runs calls of compilers for other workers' steps.
pub const CALLS: &str = "kiln.calls";
/// `on` if the action may access the network. Granted rather than matched. An action in a root of its own has one of the values in
/// [`root`]; of these, `host` is matched as well.
pub const NETWORK: &str = "kiln.network";
/// Prefix of the names of an action's secrets, each `on`: `kiln.secret.NPM_TOKEN`. Granted rather than matched. The
/// name is part of the action, the value is not. If it is to be, the property has a MAC of it, in hexadecimal, in place of `on`.
pub const SECRET_PREFIX: &str = "kiln.secret.";
/// What runs the action: `sandbox`, `docker`, `root`, or `image-resolver`. An action with an image uses `docker`, one with the property
/// [`root::ROOT`] uses `root`.
pub const EXECUTOR: &str = "kiln.executor";
/// The executor on the worker's own system.
pub const SANDBOX: &str = "sandbox";
/// The executor in containers of the worker's Docker Engine.
pub const DOCKER: &str = "docker";
/// The executor in root file systems that are part of the action's inputs.
pub const IN_ROOT: &str = "root";
/// Resolves an image name to a digest with the worker's Docker Engine and its credentials, instead of running a
/// command. The arguments are the name and the platform; standard output is the name with its digest.
pub const IMAGE_RESOLVER: &str = "image-resolver";
/// An output node property rather than a platform property, see REAPI's `NodeProperties`: a worker that offers it
/// reports the permission bits of outputs unless they are 0644 or 0755.
pub const UNIX_MODE: &str = "unix_mode";
/// Prefix of custom labels: `kiln.label.gpu`.
pub const LABEL_PREFIX: &str = "kiln.label.";

/// A CPU level and all levels below it: `x86-64-v3` also runs code for `x86-64-v2`.
pub fn cpu_levels(own: &str) -> Vec<String> {
    match own.rsplit_once("-v").map(|(base, level)| (base, level.parse::<u32>())) {
        Some((base, Ok(level))) => (1..=level.min(16)).map(|level| format!("{base}-v{level}")).collect(),
        _ => vec![own.to_owned()],
    }
}

/// Whether the farm knows a property with this name.
pub fn is_known(name: &str) -> bool {
    matches!(
        name,
        OS_FAMILY
            | ISA
            | CONTAINER_IMAGE
            | OS
            | LIBC
            | CPU_LEVEL
            | CPU
            | ENVIRONMENT
            | EMULATED
            | CPUS
            | MEMORY
            | NETWORK
            | EXECUTOR
            | CALLS
            | root::ROOT
            | root::USER
            | root::MOUNTS
            | root::HOSTS
            | root::HOSTNAME
            | root::SERVICE
    ) || name.strip_prefix(LABEL_PREFIX).is_some_and(|label| !label.is_empty())
}

/// Whether a worker must offer it, rather than grant or reserve it.
pub fn is_matched(name: &str) -> bool {
    !matches!(
        name,
        CPUS | MEMORY | NETWORK | root::ROOT | root::USER | root::MOUNTS | root::HOSTS | root::HOSTNAME | root::SERVICE
    ) && !name.starts_with(SECRET_PREFIX)
}

/// The container notation of an architecture named by `ISA`.
pub fn architecture(isa: &str) -> Option<&'static str> {
    match isa {
        "x86-64" => Some("amd64"),
        "arm-a64" => Some("arm64"),
        _ => None,
    }
}

/// Tools that a worker's probe looks for. A step that uses one of them only runs where it is installed.
pub const PROBED_TOOLS: &[&str] = &[
    "autoreconf",
    "bun",
    "bundle",
    "c++",
    "cargo",
    "cc",
    "clang",
    "cmake",
    "composer",
    "conan",
    "deno",
    "gcc",
    "git",
    "go",
    "gradle",
    "hugo",
    "jar",
    "java",
    "javac",
    "make",
    "meson",
    "mvn",
    "ninja",
    "node",
    "npm",
    "php",
    "pip",
    "pkg-config",
    "pnpm",
    "poetry",
    "protoc",
    "python3",
    "ruby",
    "rustc",
    "tar",
    "uv",
    "yarn",
    "zig",
    "zstd",
];
