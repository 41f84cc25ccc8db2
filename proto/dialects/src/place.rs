//! Where a request goes: `/cache/[scope/NAME/]TOOL/…`.
//!
//! Invariant: what comes out of here are plain names, but for the scope. No segment is empty, `.` or `..`, none contains a slash or a
//! control character in any encoding, and all together are short; so no key escapes from its tool.

use percent_encoding::percent_decode_str;

use crate::ask::MAX_KEY;
use crate::refusal::Refusal;
use crate::tool::Tool;

/// A tool's cache, and the rest of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose cache it is.
    pub tool: Tool,
    /// The scope that the path names, if any; whoever has scopes knows which names they may have.
    pub scope: Option<String>,
    /// The segments after the tool.
    pub segments: Vec<String>,
}

fn decoded(segment: &str) -> Result<String, Refusal> {
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| malformed("the path is not UTF-8"))?;
    Ok(text.into_owned())
}

fn malformed(words: &str) -> Refusal {
    Refusal::Malformed(words.to_owned())
}

fn plain(segment: &str) -> Result<String, Refusal> {
    let segment = decoded(segment)?;
    let is_plain =
        !matches!(segment.as_str(), "" | "." | "..") && !segment.contains(|c: char| c == '/' || c.is_control());
    if is_plain { Ok(segment) } else { Err(malformed("the path has an empty, relative or unprintable segment")) }
}

impl Place {
    /// Reads a path as it was sent.
    ///
    /// # Errors
    /// If no cache is there, or the path is not plain.
    pub fn of(path: &str) -> Result<Self, Refusal> {
        let rest = path.strip_prefix("/cache/").ok_or(Refusal::Unknown)?;
        let (scope, rest) = match rest.strip_prefix("scope/") {
            None => (None, rest),
            Some(rest) => {
                let (scope, rest) = rest.split_once('/').ok_or(Refusal::Unknown)?;
                (Some(decoded(scope)?), rest)
            }
        };
        let (tool, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let tool = Tool::of(tool).ok_or(Refusal::Unknown)?;
        if rest.len() > 3 * MAX_KEY {
            return Err(Refusal::Malformed(format!("the key is too long; expected at most {MAX_KEY} bytes")));
        }
        // A directory may be named with a slash at its end.
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let segments: Vec<String> =
            if rest.is_empty() { Vec::new() } else { rest.split('/').map(plain).collect::<Result<_, _>>()? };
        if segments.iter().fold(segments.len(), |length, segment| length.saturating_add(segment.len())) > MAX_KEY {
            return Err(Refusal::Malformed(format!("the key is too long; expected at most {MAX_KEY} bytes")));
        }
        Ok(Self { tool, scope, segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_scope_tool_and_key() {
        let place = |path: &str| Place::of(path).unwrap();
        let plain = place("/cache/ccache/20/7brh");
        assert_eq!((plain.tool, plain.scope, plain.segments), (Tool::Ccache, None, vec!["20".into(), "7brh".into()]));
        let scoped = place("/cache/scope/refs%2Fpull%2F7/nx/v1/cache/1");
        assert_eq!((scoped.tool, scoped.scope.as_deref()), (Tool::Nx, Some("refs/pull/7")));
        assert!(place("/cache/sccache/").segments.is_empty() && place("/cache/sccache").segments.is_empty());
    }

    #[test]
    fn no_path_leads_elsewhere() {
        let long = format!("/cache/ccache/{}", "a".repeat(10_000));
        let many = format!("/cache/sccache/{}", "a/".repeat(400));
        for path in [
            "/cache/ccache/..",
            "/cache/ccache/../bazel/ac/x",
            "/cache/sccache/a/%2e%2e/b",
            "/cache/sccache/a/%2E./b",
            "/cache/sccache/a%2fb",
            "/cache/sccache/a%00b",
            "/cache/sccache/a//b",
            "/cache/sccache/%ff",
            &long,
            &many,
        ] {
            assert!(matches!(Place::of(path), Err(Refusal::Malformed(_))), "expected `{path}` to be refused");
        }
        for path in ["/", "/cache/", "/cache/make/x", "/cache/scope/x", "/ccache/aa", "cache/ccache/aa"] {
            assert_eq!(Place::of(path), Err(Refusal::Unknown), "expected `{path}` to be unknown");
        }
    }
}
