//! What differs between two runs of the same work, and why.
//!
//! Invariant: whatever the bytes are, comparing them takes time and memory in proportion to [`Limits`], and never fails: what cannot be
//! read as what it claims to be is compared as bytes.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]

mod archive;
mod binary;
mod classify;
mod elf;
mod formats;
mod json;
mod listing;
mod packed;
mod place;
mod text;
mod times;

pub use listing::{Listing, Node, listings};

/// What a difference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A time at which something ran.
    Time,
    /// The same parts in another order.
    Order,
    /// The number of CPUs.
    Cpus,
    /// The name of the machine.
    HostName,
    /// The name of a file or directory, such as one in `/tmp`.
    Path,
    /// A memory address, or a hash with a random seed.
    Address,
    /// Permission bits or an owner.
    Permission,
    /// Something that only one run made.
    Missing,
    /// An identifier of the build, made at random or from the rest of the content.
    BuildId,
    /// Anything else.
    Content,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Time,
        Self::Order,
        Self::Cpus,
        Self::HostName,
        Self::Path,
        Self::Address,
        Self::Permission,
        Self::Missing,
        Self::BuildId,
        Self::Content,
    ];

    /// Its name, such as in provenance.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Order => "order",
            Self::Cpus => "cpus",
            Self::HostName => "host-name",
            Self::Path => "path",
            Self::Address => "address",
            Self::Permission => "permission",
            Self::Missing => "missing",
            Self::BuildId => "build-id",
            Self::Content => "content",
        }
    }

    /// What it is, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Time => "time stamp",
            Self::Order => "order",
            Self::Cpus => "number of CPUs",
            Self::HostName => "host name",
            Self::Path => "path",
            Self::Address => "address or hash seed",
            Self::Permission => "permissions",
            Self::Missing => "only in one run",
            Self::BuildId => "build id",
            Self::Content => "content",
        }
    }
}

/// Something that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The file, as a path among the outputs.
    pub path: String,
    /// What it comes from.
    pub kind: Kind,
    /// What differs and where, without the path.
    pub words: String,
}

/// The conditions of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// When its command began, in seconds since 1970; 0 if that is unknown.
    pub began: i64,
    /// When it ended, in seconds since 1970.
    pub ended: i64,
    /// The number of CPUs that it could run on; 0 if that is unknown.
    pub cpus: u32,
    /// What it saw as the name of its machine; empty if that is unknown.
    pub host_name: String,
}

/// Two runs.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'a> {
    /// The first.
    pub first: &'a Conditions,
    /// The second.
    pub second: &'a Conditions,
}

/// What a comparison may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of each run that are unpacked.
    pub unpacked: u64,
    /// Most members of one archive.
    pub members: usize,
    /// Most archives in one another.
    pub depth: usize,
    /// Most differences of a file.
    pub differences: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { unpacked: 128 << 20, members: 50_000, depth: 4, differences: 20 }
    }
}

/// What differs between two contents of a file, the most telling first. Empty only if they are equal.
pub fn contents(path: &str, first: &[u8], second: &[u8], runs: Runs<'_>, limits: &Limits) -> Vec<Difference> {
    if first == second {
        return Vec::new();
    }
    let mut found = place::Found::new(path, runs, *limits);
    formats::compare(&mut found, &place::Place::file(path), first, second);
    found.into_differences()
}

#[cfg(test)]
mod tests;
