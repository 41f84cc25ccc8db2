//! The tools whose caches are served.

/// A tool.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    Bazel,
    Ccache,
    Gradle,
    Go,
    Maven,
    Nx,
    /// Over WebDAV.
    Sccache,
    Turbo,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Bazel, Self::Ccache, Self::Gradle, Self::Go, Self::Maven, Self::Nx, Self::Sccache, Self::Turbo];

    /// Its name in paths, keys and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bazel => "bazel",
            Self::Ccache => "ccache",
            Self::Gradle => "gradle",
            Self::Go => "go",
            Self::Maven => "maven",
            Self::Nx => "nx",
            Self::Sccache => "sccache",
            Self::Turbo => "turbo",
        }
    }

    /// The tool of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }
}
