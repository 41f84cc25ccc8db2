//! The platforms that Kiln builds for.
//!
//! Invariant: the textual form is the one used for containers (`linux/amd64`), and parses back to the same value.

use std::{fmt, str::FromStr};

/// An operating system and processor architecture. Only Linux is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// `linux/amd64`: x86-64.
    Amd64,
    /// `linux/arm64`: ARMv8-A, 64 bits.
    Arm64,
}

/// An unknown platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform `{0}`: expected `linux/amd64` or `linux/arm64`{hint}", hint = meant(.0))]
pub struct UnknownPlatform(
    /// What was found.
    pub String,
);

/// A suggestion if the text is another name of a known platform.
fn meant(text: &str) -> String {
    let machine = text.rsplit('/').next().unwrap_or_default().to_ascii_lowercase().replace('-', "_");
    let platform = match machine.as_str() {
        "x86_64" | "x64" | "amd64" => Platform::Amd64,
        "aarch64" | "arm_a64" | "armv8" | "arm64" => Platform::Arm64,
        _ => return String::new(),
    };
    format!("; did you mean `{platform}`?")
}

impl Platform {
    /// All platforms.
    pub const ALL: [Platform; 2] = [Platform::Amd64, Platform::Arm64];

    /// The value of the Remote Execution API's platform property `ISA`.
    pub fn isa(self) -> &'static str {
        match self {
            Platform::Amd64 => "x86-64",
            Platform::Arm64 => "arm-a64",
        }
    }

    /// The CPU levels that exist on it, for error messages.
    pub fn cpu_levels(self) -> &'static str {
        match self {
            Platform::Amd64 => "`x86-64-v1` to `x86-64-v4`",
            Platform::Arm64 => "`armv8`",
        }
    }

    /// Whether a CPU level exists on this platform: the x86-64 psABI's micro-architecture levels, or `armv8`.
    pub fn has_cpu_level(self, level: &str) -> bool {
        match self {
            Platform::Amd64 => ["x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4"].contains(&level),
            Platform::Arm64 => level == "armv8",
        }
    }

    /// The architecture as named for containers.
    pub fn architecture(self) -> &'static str {
        match self {
            Platform::Amd64 => "amd64",
            Platform::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture())
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Platform::ALL.into_iter().find(|p| p.to_string() == text).ok_or_else(|| UnknownPlatform(text.to_owned()))
    }
}
