//! Where a user's own files are: the variables of the XDG Base Directory Specification, else the usual places of the system.

use std::path::PathBuf;

use super::own;

fn base(variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set(variable).or_else(|| match own::PROFILE {
        Some((profile, inside)) => set(profile).map(|profile| profile.join(inside)),
        None => set("HOME").map(|home| home.join(below_home)),
    })
}

/// For what can be made again: `$XDG_CACHE_HOME`, else `~/.cache`.
pub fn cache() -> Option<PathBuf> {
    base("XDG_CACHE_HOME", ".cache")
}

/// For the user's decisions: `$XDG_CONFIG_HOME`, else `~/.config`.
pub fn config() -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config")
}

/// For what programs remember: `$XDG_STATE_HOME`, else `~/.local/state`.
pub fn state() -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state")
}
