//! Which of OSV's ecosystems a package belongs to, and by which names it is known there. Source: OSV schema 1.6, "affected[].package".

use crate::purl::Purl;
use crate::versions::Scheme;

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ecosystem {
    /// The name in OSV without a release; empty if OSV has none for it.
    pub(crate) name: &'static str,
    /// The names that entries may have for the package, its own first.
    pub(crate) names: Vec<String>,
    /// The release of the system, such as `12`; empty if it is unknown or there are none.
    pub(crate) release: String,
    /// The order of its versions.
    pub(crate) scheme: Scheme,
    /// The version, with the epoch that its package URL has apart.
    pub(crate) version: String,
}

/// Vendors of systems, as `os-release` has them, and OSV's names.
const SYSTEMS: [(&str, &str); 12] = [
    ("debian", "Debian"),
    ("ubuntu", "Ubuntu"),
    ("alpine", "Alpine"),
    ("chainguard", "Chainguard"),
    ("wolfi", "Wolfi"),
    ("rocky", "Rocky Linux"),
    ("almalinux", "AlmaLinux"),
    ("rhel", "Red Hat"),
    ("redhat", "Red Hat"),
    ("opensuse-leap", "openSUSE"),
    ("opensuse", "openSUSE"),
    ("sles", "SUSE"),
];

impl Ecosystem {
    pub(crate) fn of(purl: &Purl) -> Self {
        let joined = |separator: &str| match purl.namespace.as_str() {
            "" => purl.name.clone(),
            namespace => format!("{namespace}{separator}{}", purl.name),
        };
        let (name, scheme, own) = match purl.kind.as_str() {
            "cargo" => ("crates.io", Scheme::Semver, purl.name.clone()),
            "npm" => ("npm", Scheme::Semver, joined("/")),
            "pypi" => ("PyPI", Scheme::Pep440, of_pypi(&purl.name)),
            "golang" => ("Go", Scheme::Semver, joined("/")),
            "maven" => ("Maven", Scheme::Maven, joined(":")),
            "gem" => ("RubyGems", Scheme::Gem, purl.name.clone()),
            "composer" => ("Packagist", Scheme::Composer, joined("/").to_ascii_lowercase()),
            "nuget" => ("NuGet", Scheme::NuGet, purl.name.clone()),
            "hex" => ("Hex", Scheme::Semver, purl.name.clone()),
            "pub" => ("Pub", Scheme::Semver, purl.name.clone()),
            "deb" | "apk" | "rpm" => return Self::of_system(purl),
            _ => ("", Scheme::None, joined("/")),
        };
        Self { name, names: vec![own], release: String::new(), scheme, version: purl.version.clone() }
    }

    /// A package of a system, which entries name by its source.
    fn of_system(purl: &Purl) -> Self {
        let qualifier = |name: &str| purl.qualifiers.get(name).cloned().unwrap_or_default();
        let name = SYSTEMS.into_iter().find(|(vendor, _)| *vendor == purl.namespace).map_or("", |(_, name)| name);
        let release = qualifier("distro").strip_prefix(&format!("{}-", purl.namespace)).unwrap_or_default().to_owned();
        let scheme = match purl.kind.as_str() {
            "deb" => Scheme::Dpkg,
            "apk" => Scheme::Apk,
            _ => Scheme::Rpm,
        };
        let mut names = vec![purl.name.clone()];
        names.extend(Some(qualifier("upstream")).filter(|source| !source.is_empty()));
        let version = match qualifier("epoch") {
            epoch if epoch.is_empty() => purl.version.clone(),
            epoch => format!("{epoch}:{}", purl.version),
        };
        Self { name, names, release, scheme, version }
    }

    /// Whether an entry for a package of this name in this ecosystem, such as `Debian:12`, is for this one.
    pub(crate) fn is_meant(&self, ecosystem: &str, name: &str) -> bool {
        let (base, release) = ecosystem.split_once(':').unwrap_or((ecosystem, ""));
        if self.name.is_empty() || base != self.name {
            return false;
        }
        let is_own = match self.name {
            "PyPI" => self.names.iter().any(|own| *own == of_pypi(name)),
            "NuGet" | "Packagist" => self.names.iter().any(|own| own.eq_ignore_ascii_case(name)),
            _ => self.names.iter().any(|own| own == name),
        };
        is_own && (release.is_empty() || self.release.is_empty() || self.is_of(release))
    }

    /// Whether one part of what follows the ecosystem is this release, as in `Ubuntu:Pro:22.04:LTS` and `Alpine:v3.18`.
    fn is_of(&self, release: &str) -> bool {
        release.split(':').any(|part| {
            let part = part.trim_start_matches('v');
            let rest = self.release.strip_prefix(part);
            !part.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

/// A name as PyPI compares them (PEP 503).
fn of_pypi(name: &str) -> String {
    let mut found = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if found.ends_with('-') => {}
            '-' | '_' | '.' => found.push('-'),
            c => found.push(c.to_ascii_lowercase()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_meant(purl: &str, ecosystem: &str, name: &str) -> bool {
        Ecosystem::of(&Purl::read(purl).unwrap()).is_meant(ecosystem, name)
    }

    #[test]
    fn a_package_is_known_by_the_names_of_its_ecosystem() {
        assert!(is_meant("pkg:pypi/Ruamel_Yaml@1", "PyPI", "ruamel.yaml"));
        assert!(is_meant("pkg:maven/org.a/b@1", "Maven", "org.a:b"));
        assert!(is_meant("pkg:npm/%40a/b@1", "npm", "@a/b"));
        assert!(is_meant("pkg:golang/golang.org/x/net@v0.1.0", "Go", "golang.org/x/net"));
        assert!(!is_meant("pkg:npm/left-pad@1", "PyPI", "left-pad"));
        assert!(!is_meant("pkg:generic/left-pad@1", "", "left-pad"));
    }

    #[test]
    fn a_package_of_a_system_is_known_by_its_source_and_its_release() {
        let openssl = "pkg:deb/debian/libssl3@3.0.1?distro=debian-12&upstream=openssl";
        assert!(is_meant(openssl, "Debian:12", "openssl") && is_meant(openssl, "Debian", "openssl"));
        assert!(!is_meant(openssl, "Debian:11", "openssl") && !is_meant(openssl, "Ubuntu:12", "openssl"));
        let musl = "pkg:apk/alpine/musl@1.2.5-r0?distro=alpine-3.18.4";
        assert!(is_meant(musl, "Alpine:v3.18", "musl") && !is_meant(musl, "Alpine:v3.1", "musl"));
        let curl = "pkg:deb/ubuntu/curl@7.81?distro=ubuntu-22.04";
        assert!(is_meant(curl, "Ubuntu:Pro:22.04:LTS", "curl") && !is_meant(curl, "Ubuntu:20.04:LTS", "curl"));
        assert!(is_meant("pkg:deb/debian/curl@7?distro=debian", "Debian:11", "curl"), "an unknown release is any");
    }
}
