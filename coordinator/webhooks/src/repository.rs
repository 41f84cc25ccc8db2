//! URLs of repositories, compared in a normal form.

/// Checks a URL of the configuration: HTTPS, HTTP, SSH, git's own protocol, or a path on this machine.
///
/// # Errors
/// If it is not allowed, with the reason.
pub(super) fn check(address: &str) -> Result<(), String> {
    let wrong = |words: &str| Err(format!("`repositories`: `{address}` {words}"));
    let Some((scheme, rest)) = address.split_once("://") else {
        return wrong(
            "is not a valid URL; expected for example `https://forge.example/team/shop`, `ssh://git@forge.example/team/shop`",
        );
    };
    if !matches!(scheme, "https" | "http" | "ssh" | "git" | "file") {
        return wrong("has an unsupported scheme; expected `https`, `http`, `ssh`, `git` or `file`");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains(['*', '?', '[', '{']) {
        return wrong("has a pattern in the host; only paths may have patterns");
    }
    if scheme != "ssh" && authority.contains('@') {
        return wrong("contains credentials; put them in `token_file`");
    }
    Ok(())
}

/// The URL without `.git` or a slash at its end, with scheme and host in lower case.
pub(super) fn normal(address: &str) -> String {
    let trimmed = address.trim_end_matches('/');
    let trimmed = trimmed.strip_suffix(".git").unwrap_or(trimmed);
    let Some((scheme, rest)) = trimmed.split_once("://") else { return trimmed.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    format!("{}://{}{path}", scheme.to_ascii_lowercase(), authority.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repository_has_one_normal_address() {
        for address in [
            "https://Forge.Example/team/Shop",
            "https://forge.example/team/Shop.git",
            "https://forge.example/team/Shop/",
        ] {
            assert_eq!(normal(address), "https://forge.example/team/Shop");
        }
        assert_ne!(normal("https://forge.example/team/shop"), normal("https://forge.example/team/Shop"));
    }

    #[test]
    fn what_could_be_anybodys_or_runs_a_program_is_refused() {
        for bad in [
            "team/shop",
            "ext::sh -c id",
            "ext://sh",
            "https://*/shop",
            "https://me:pw@forge.example/shop",
            "--upload-pack=id",
        ] {
            assert!(check(bad).is_err(), "expected `{bad}` to be refused");
        }
        for good in ["https://forge.example/*", "ssh://git@forge.example/team/shop", "file:///srv/git/shop"] {
            assert_eq!(check(good), Ok(()));
        }
    }
}
