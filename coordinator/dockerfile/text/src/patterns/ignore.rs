//! `.dockerignore`.

use super::Patterns;
use crate::error::{Error, Problem, shown};
use crate::golang::clean;
use crate::source::{Source, Span};

/// Maximum number of patterns.
const MAX_PATTERNS: usize = 10_000;

/// What a `.dockerignore` leaves out of a context.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ignore {
    patterns: Patterns,
}

impl Ignore {
    /// The names of the file that says what to leave out for a Dockerfile, in the order in which they are looked for. The first
    /// is beside the Dockerfile, the second in the context's root.
    pub fn names(dockerfile: &str) -> [String; 2] {
        [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()]
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If a pattern is invalid.
    pub fn read(name: &str, text: &str) -> Result<Self, Error> {
        let source = Source::new(name, text);
        let mut patterns = Vec::new();
        let mut spans = Vec::new();
        for line in 1.. {
            let bytes = source.line_bytes(line);
            if bytes.start >= text.len() {
                break;
            }
            let written = text.get(bytes.clone()).unwrap_or_default();
            let written = if line == 1 { written.strip_prefix('\u{feff}').unwrap_or(written) } else { written };
            let pattern = written.trim();
            if written.starts_with('#') || pattern.is_empty() {
                continue;
            }
            patterns.push(match pattern.strip_prefix('!').map(str::trim) {
                None => relative(pattern),
                Some("") => "!".to_owned(),
                Some(rest) => format!("!{}", relative(rest)),
            });
            spans.push(Span::new(bytes.start, bytes.end));
            if patterns.len() > MAX_PATTERNS {
                let problem =
                    Problem::new(Span::new(bytes.start, bytes.end), format!("more than {MAX_PATTERNS} patterns"));
                return Err(problem.help("leave out directories rather than files").of(&source));
            }
        }
        match Patterns::new(&patterns) {
            Ok(patterns) => Ok(Self { patterns }),
            Err((at, error)) => {
                let span = spans.get(at).copied().unwrap_or_default();
                let text = patterns.get(at).map(|pattern| shown(pattern)).unwrap_or_default();
                Err(Problem::new(span, format!("invalid pattern {text}: {error}")).of(&source))
            }
        }
    }

    /// The patterns.
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// Whether a path of the context is left out. The Dockerfile and its `.dockerignore` can always be read, by whoever builds.
    pub fn excludes(&self, path: &str) -> bool {
        self.patterns.matches(path)
    }
}

/// A pattern from the context's root on.
fn relative(pattern: &str) -> String {
    let cleaned = clean(pattern);
    match cleaned.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => cleaned,
    }
}
