//! What the package managers of an image's system say is installed: dpkg, apk and rpm.
//!
//! Invariant: databases are untrusted. What cannot be read contributes nothing, and sizes are bounded by whoever reads the files.
//! Sources: dpkg's `status(5)` format, Alpine's installed database, the package URL types `deb`, `apk` and `rpm`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{percent, rpm};

/// Where dpkg's database is, and where images without dpkg have it in parts.
pub(crate) const DPKG: &str = "/var/lib/dpkg/status";
pub(crate) const DPKG_PARTS: &str = "/var/lib/dpkg/status.d";
/// Where apk's is.
pub(crate) const APK: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// Where rpm's is.
pub(crate) const RPM: [&str; 2] = ["/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite"];
/// Where its databases are, in every format.
pub(crate) const RPM_DIRECTORIES: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];
/// SQLite's, the only one that is read.
const RPM_SQLITE: &str = "rpmdb.sqlite";
/// Berkeley DB's, and that of rpm's own `ndb`.
const RPM_OTHERS: [&str; 2] = ["Packages", "Packages.db"];
/// What says which system it is.
pub(crate) const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
/// Maximum number of packages.
const MAX_PACKAGES: usize = 50_000;

/// A package of the system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Installed {
    /// Its purl type: `deb`, `apk` or `rpm`.
    pub kind: Cow<'static, str>,
    /// Its name.
    pub name: String,
    /// Its version, with dpkg's epoch and without rpm's.
    pub version: String,
    /// Its architecture, as the package manager calls it.
    pub architecture: String,
    /// The source package, if it has another name.
    pub source: String,
    /// rpm's epoch.
    pub epoch: String,
    /// Its licence as the package manager has it, which apk does; empty if it has none.
    #[serde(default)]
    pub license: String,
    /// The system, as `os-release` names it: `debian`, and `debian-12`.
    pub system: (String, String),
}

impl Installed {
    /// Its package URL.
    pub(super) fn purl(&self) -> String {
        let (vendor, distribution) = &self.system;
        let vendor = if vendor.is_empty() { String::new() } else { format!("{}/", percent(vendor)) };
        let qualifiers = [
            ("arch", &self.architecture),
            ("distro", distribution),
            ("epoch", &self.epoch),
            ("upstream", &self.source),
        ];
        let qualifiers: Vec<String> = qualifiers
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", percent(value)))
            .collect();
        let qualifiers = if qualifiers.is_empty() { String::new() } else { format!("?{}", qualifiers.join("&")) };
        format!("pkg:{}/{vendor}{}@{}{qualifiers}", self.kind, percent(&self.name), percent(&self.version))
    }
}

/// The databases of an image.
#[derive(Debug, Default)]
pub(crate) struct Databases {
    /// dpkg's, whole or in parts.
    pub(crate) dpkg: Vec<Vec<u8>>,
    /// apk's.
    pub(crate) apk: Vec<Vec<u8>>,
    /// rpm's.
    pub(crate) rpm: Vec<Vec<u8>>,
    /// `os-release`.
    pub(crate) os_release: Option<Vec<u8>>,
}

impl Databases {
    /// What is installed, sorted.
    pub(crate) fn installed(&self) -> Vec<Installed> {
        let system = self.os_release.as_deref().map(os_release).unwrap_or_default();
        let mut found: Vec<Installed> = self.dpkg.iter().flat_map(|data| dpkg(data)).collect();
        found.extend(self.apk.iter().flat_map(|data| apk(data)));
        found.extend(self.rpm.iter().flat_map(|data| rpm::installed(data)));
        found.iter_mut().for_each(|package| package.system.clone_from(&system));
        found.sort();
        found.dedup();
        found.truncate(MAX_PACKAGES);
        found
    }
}

/// The database among these names of a directory that has packages and is not read.
pub(crate) fn unread_rpm(names: &[Vec<u8>]) -> Option<&'static str> {
    let has = |name: &str| names.iter().any(|other| other == name.as_bytes());
    RPM_OTHERS.into_iter().find(|name| has(name) && !has(RPM_SQLITE))
}

/// The id of a system, and its id with its version.
fn os_release(data: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(data);
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim().trim_matches(['"', '\''])))
        .collect();
    let id = fields.get("ID").copied().unwrap_or_default().to_owned();
    match fields.get("VERSION_ID").filter(|_| !id.is_empty()) {
        Some(version) => (id.clone(), format!("{id}-{version}")),
        None => (id.clone(), id),
    }
}

/// The paragraphs of a text in which a line that begins with a blank continues the one before.
fn paragraphs(data: &[u8]) -> Vec<BTreeMap<String, String>> {
    let text = String::from_utf8_lossy(data);
    let (mut found, mut fields) = (Vec::new(), BTreeMap::new());
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            if !fields.is_empty() {
                found.push(std::mem::take(&mut fields));
            }
        } else if let (false, Some((name, value))) = (line.starts_with([' ', '\t']), line.split_once(':')) {
            fields.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    found
}

fn dpkg(data: &[u8]) -> Vec<Installed> {
    let package = |fields: BTreeMap<String, String>| {
        let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
        // What is in parts has no status.
        let is_installed = fields.get("Status").is_none_or(|status| status.ends_with(" installed"));
        let (name, version) = (get("Package"), get("Version"));
        let source = get("Source").split(' ').next().unwrap_or_default().to_owned();
        (is_installed && !name.is_empty() && !version.is_empty()).then(|| Installed {
            kind: "deb".into(),
            source: if source == name { String::new() } else { source },
            name,
            version,
            architecture: get("Architecture"),
            ..Installed::default()
        })
    };
    paragraphs(data).into_iter().filter_map(package).collect()
}

fn apk(data: &[u8]) -> Vec<Installed> {
    let package = |fields: BTreeMap<String, String>| {
        let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let (name, version, origin) = (get("P"), get("V"), get("o"));
        (!name.is_empty() && !version.is_empty()).then(|| Installed {
            kind: "apk".into(),
            source: if origin == name { String::new() } else { origin },
            name,
            version,
            architecture: get("A"),
            license: get("L"),
            ..Installed::default()
        })
    };
    paragraphs(data).into_iter().filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purls(databases: &Databases) -> Vec<String> {
        databases.installed().iter().map(Installed::purl).collect()
    }

    #[test]
    fn packages_of_each_manager_have_the_urls_that_scanners_know() {
        let dpkg = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl (3.0.1)\n\
                    Version: 3.0.1-1~deb12u1\nDescription: x\n Version: 9\n\nPackage: gone\nStatus: deinstall ok config-files\n\
                    Version: 1\n\nPackage: g++-12\nStatus: install ok installed\nVersion: 1:2+b\n";
        let os_release = Some(b"NAME=x\nID=debian\nVERSION_ID=\"12\"\n".to_vec());
        let debian = Databases { dpkg: vec![dpkg.into()], os_release, ..Databases::default() };
        assert_eq!(
            purls(&debian),
            [
                "pkg:deb/debian/g%2B%2B-12@1%3A2%2Bb?distro=debian-12",
                "pkg:deb/debian/libssl3@3.0.1-1~deb12u1?arch=amd64&distro=debian-12&upstream=openssl"
            ]
        );
        let apk = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\no:musl\nF:lib\nR:ld.so\n\nP:ssl_client\nV:1.36.1-r29\nA:x86_64\no:busybox\n";
        let alpine =
            Databases { apk: vec![apk.into()], os_release: Some(b"ID=alpine\n".to_vec()), ..Databases::default() };
        assert_eq!(
            purls(&alpine),
            [
                "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine",
                "pkg:apk/alpine/ssl_client@1.36.1-r29?arch=x86_64&distro=alpine&upstream=busybox"
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_database_panics(data: Vec<u8>) {
            let all = || vec![data.clone()];
            Databases { dpkg: all(), apk: all(), rpm: all(), os_release: Some(data.clone()) }.installed();
        }
    }
}
