//! Options of a command line, without what may be secret in them.

/// Options whose whole value may be secret.
const SECRET: [&str; 3] = ["header", "credential", "password"];
/// Options whose value is `NAME=VALUE`: the value may be secret.
const NAMED: [&str; 6] = ["action_env", "host_action_env", "repo_env", "test_env", "client_env", "define"];
/// Stands for what is not shown.
const HIDDEN: &str = "…";

/// An option as it may be shown.
pub(crate) fn shown(option: &str) -> String {
    let Some((name, value)) = option.split_once('=') else { return option.to_owned() };
    let plain = name.trim_start_matches('-');
    if SECRET.iter().any(|word| plain.contains(word)) {
        return format!("{name}={HIDDEN}");
    }
    if NAMED.contains(&plain)
        && let Some((variable, _)) = value.split_once('=')
    {
        return format!("{name}={variable}={HIDDEN}");
    }
    let Some((scheme, rest)) = value.split_once("://") else { return option.to_owned() };
    // A URL with a password.
    match rest.split('/').next().and_then(|authority| authority.rsplit_once('@')) {
        Some((user, _)) => format!("{name}={scheme}://{HIDDEN}{}", rest.get(user.len()..).unwrap_or_default()),
        None => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (option, expected) in [
            ("--config=ci", "--config=ci"),
            ("-k", "-k"),
            ("--remote_header=authorization=Bearer abc", "--remote_header=…"),
            ("--bes_header=x-key=abc", "--bes_header=…"),
            ("--google_credentials=/home/me/key.json", "--google_credentials=…"),
            ("--action_env=TOKEN=abc=d", "--action_env=TOKEN=…"),
            ("--action_env=PATH", "--action_env=PATH"),
            ("--remote_cache=https://me:secret@cache.example/x", "--remote_cache=https://…@cache.example/x"),
            ("--remote_cache=grpcs://cache.example/a@b", "--remote_cache=grpcs://cache.example/a@b"),
        ] {
            assert_eq!(shown(option), expected);
        }
    }
}
