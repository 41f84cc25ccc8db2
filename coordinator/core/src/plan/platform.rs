//! The machines that Kiln builds for.
//!
//! Invariant: the textual form is the one that containers use (`linux/amd64`), and reads back to the same value.

use std::{fmt, str::FromStr};

/// An operating system and processor architecture. Only Linux is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// `linux/amd64`: x86-64.
    Amd64,
    /// `linux/arm64`: ARMv8-A, 64 bits.
    Arm64,
}

/// A platform that Kiln does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: expected `linux/amd64` or `linux/arm64`")]
pub struct UnknownPlatform(
    /// What was found.
    pub String,
);

impl Platform {
    /// Every platform there is.
    pub const ALL: [Platform; 2] = [Platform::Amd64, Platform::Arm64];

    /// The value of the Remote Execution API's platform property `ISA`.
    pub fn isa(self) -> &'static str {
        match self {
            Platform::Amd64 => "x86-64",
            Platform::Arm64 => "arm-a64",
        }
    }

    /// The architecture alone, as containers name it.
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
