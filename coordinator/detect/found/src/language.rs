//! The languages in which a project can be built, under the names that users give them.

/// A language in which a project can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// Cargo.
    Rust,
    /// Go modules.
    Go,
    /// Maven, Gradle, or plain sources.
    Java,
    /// npm, pnpm, yarn, Bun.
    Node,
    /// `deno.json`.
    Deno,
    /// pip, uv, poetry, Pipenv.
    Python,
    /// Bundler.
    Ruby,
    /// Composer.
    Php,
    /// `build.zig`.
    Zig,
    /// Sites of Hugo.
    Hugo,
    /// C and C++: CMake, Meson, Autoconf, Make.
    C,
}

impl Language {
    /// All languages, in the order that decides between equal weights.
    pub const ALL: [Language; 11] = [
        Self::Rust,
        Self::Go,
        Self::Java,
        Self::Node,
        Self::Deno,
        Self::Python,
        Self::Ruby,
        Self::Php,
        Self::Zig,
        Self::Hugo,
        Self::C,
    ];

    /// The name used in `--language` and `kiln.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Java => "java",
            Self::Node => "node",
            Self::Deno => "deno",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Php => "php",
            Self::Zig => "zig",
            Self::Hugo => "hugo",
            Self::C => "c",
        }
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A language that Kiln cannot detect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one of rust, go, java, node, deno, python, ruby, php, zig, hugo, c")]
pub struct UnknownLanguage;

impl std::str::FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "rust" | "cargo" => Self::Rust,
            "go" | "golang" => Self::Go,
            "java" | "kotlin" | "maven" | "gradle" => Self::Java,
            "node" | "nodejs" | "javascript" | "typescript" | "npm" | "pnpm" | "yarn" | "bun" => Self::Node,
            "deno" => Self::Deno,
            "python" | "pip" | "uv" | "poetry" | "pipenv" => Self::Python,
            "ruby" | "bundler" => Self::Ruby,
            "php" | "composer" => Self::Php,
            "zig" => Self::Zig,
            "hugo" => Self::Hugo,
            "c" | "c++" | "cpp" | "cxx" | "cmake" | "meson" | "make" | "autoconf" => Self::C,
            _ => return Err(UnknownLanguage),
        })
    }
}
