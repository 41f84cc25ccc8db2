//! The system's time zone by its files; see the README for why it stands in for the published crate.

use std::path::Path;

/// The name is not to be found.
#[derive(Debug, thiserror::Error)]
#[error("this system does not say its time zone: `/etc/localtime` leads to none, and `/etc/timezone` names none")]
pub struct GetTimezoneError;

/// The name in the IANA database, such as `Europe/Berlin`.
///
/// # Errors
/// If neither `/etc/localtime` nor `/etc/timezone` says it.
pub fn get_timezone() -> Result<String, GetTimezoneError> {
    name(Path::new("/etc/localtime"), Path::new("/etc/timezone")).ok_or(GetTimezoneError)
}

fn name(link: &Path, file: &Path) -> Option<String> {
    let target = std::fs::read_link(link).ok();
    let linked = target
        .as_deref()
        .and_then(Path::to_str)
        .and_then(|path| path.rsplit_once("/zoneinfo/"))
        .map(|(_, name)| name.to_owned());
    let written = || std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
    linked.or_else(written).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_the_zone_and_else_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(name(&at("link"), &at("file")), None);
        std::fs::write(at("file"), "Etc/UTC\n").unwrap();
        assert_eq!(name(&at("link"), &at("file")).as_deref(), Some("Etc/UTC"));
        for target in [
            "/usr/share/zoneinfo/Europe/Berlin",
            "/var/db/timezone/zoneinfo/Europe/Berlin",
            "../usr/share/zoneinfo/Europe/Berlin",
        ] {
            std::os::unix::fs::symlink(target, at("link")).unwrap();
            assert_eq!(name(&at("link"), &at("file")).as_deref(), Some("Europe/Berlin"));
            std::fs::remove_file(at("link")).unwrap();
        }
        std::os::unix::fs::symlink("/elsewhere/Berlin", at("link")).unwrap();
        assert_eq!(name(&at("link"), &at("file")).as_deref(), Some("Etc/UTC"));
    }
}
