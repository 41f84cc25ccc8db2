//! Platforms: `linux/arm64`, `linux/arm/v7`, `windows(10.0.17763)/amd64`.

use std::fmt;

use crate::error::{list, shown};

const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 23] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "wasm",
];

/// The platform that an image runs on, with Go's names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7`, or empty.
    pub variant: String,
    /// Of Windows, or empty.
    pub os_version: String,
}

impl Platform {
    /// Linux on this architecture.
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// Reads a platform. What it does not say, such as the operating system in `arm64`, is taken from `default`.
    ///
    /// # Errors
    /// What is wrong, and what was expected.
    pub fn read(text: &str, default: &Self) -> Result<Self, String> {
        let invalid = || format!("invalid platform {}; expected for example `linux/amd64`", shown(text));
        let parts: Vec<&str> = text.split('/').collect();
        let is_part = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        let first = parts.first().copied().unwrap_or_default();
        let (system, version) = match first.split_once('(') {
            None => (first, ""),
            Some((system, rest)) => (system, rest.strip_suffix(')').ok_or_else(invalid)?),
        };
        if !is_part(system)
            || !(version.is_empty() || is_part(version))
            || !parts.iter().skip(1).all(|part| is_part(part))
        {
            return Err(invalid());
        }
        let os = match system.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let os_version = version.to_owned();
        match parts.as_slice() {
            [_] if SYSTEMS.contains(&&*os) => Ok(Self {
                os,
                os_version,
                architecture: default.architecture.clone(),
                variant: default.variant.clone(),
            }),
            [_] => {
                let (architecture, variant) = architecture(system, "");
                if !ARCHITECTURES.contains(&&*architecture) {
                    let known = list(["linux/amd64", "linux/arm64"]);
                    return Err(format!("unknown platform {}; expected for example {known}", shown(text)));
                }
                Ok(Self { os: default.os.clone(), os_version, architecture, variant: without_default(variant) })
            }
            [_, machine] => {
                let (architecture, variant) = architecture(machine, "");
                Ok(Self { os, os_version, architecture, variant: without_default(variant) })
            }
            [_, machine, variant] => {
                let (architecture, variant) = architecture(machine, variant);
                let variant = if architecture == "arm64" && variant.is_empty() { "v8".to_owned() } else { variant };
                Ok(Self { os, os_version, architecture, variant })
            }
            _ => Err(invalid()),
        }
    }

    /// The same with the usual names, and without a variant that goes without saying.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = architecture(&self.architecture, &self.variant);
        let os = if self.os.eq_ignore_ascii_case("macos") { "darwin".to_owned() } else { self.os.to_ascii_lowercase() };
        Self { os, architecture, variant, os_version: self.os_version.clone() }
    }

    /// Without the version of the operating system.
    pub fn short(&self) -> String {
        let variant = if self.variant.is_empty() { String::new() } else { format!("/{}", self.variant) };
        format!("{}/{}{variant}", self.os, self.architecture)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os_version.is_empty() {
            return f.write_str(&self.short());
        }
        write!(f, "{}({})/{}", self.os, self.os_version, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// `linux/arm` is version 7 without saying so.
fn without_default(variant: String) -> String {
    if variant == "v7" { String::new() } else { variant }
}

/// The usual names of an architecture and its variant.
fn architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}
