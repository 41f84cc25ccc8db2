//! The tools whose caches are served.

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tool {
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
    pub(crate) const ALL: [Self; 8] =
        [Self::Bazel, Self::Ccache, Self::Gradle, Self::Go, Self::Maven, Self::Nx, Self::Sccache, Self::Turbo];

    /// Its name in paths, keys and metrics.
    pub(crate) fn name(self) -> &'static str {
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

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }
}
