//! The orders that ecosystems give their versions.
//!
//! Invariant: [`compare`] answers for versions that its scheme knows only. What it does not know is `None`, and never equal to anything.

mod apk;
mod composer;
mod dpkg;
mod gem;
mod maven;
mod nuget;
mod parts;

use std::cmp::Ordering;
use std::str::FromStr;

/// How versions of an ecosystem are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Semantic versions: crates.io, npm, Go, Hex, Pub.
    Semver,
    /// Python's (PEP 440).
    Pep440,
    /// dpkg's.
    Dpkg,
    /// rpm's.
    Rpm,
    /// Alpine's.
    Apk,
    /// Maven's.
    Maven,
    /// RubyGems'.
    Gem,
    /// Composer's.
    Composer,
    /// NuGet's: semantic versions with up to four numbers.
    NuGet,
    /// None is known.
    None,
}

/// Compares two versions; `None` if the scheme does not know one of them.
pub fn compare(scheme: Scheme, a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (a.trim(), b.trim());
    match scheme {
        Scheme::Semver => Some(semver(a)?.cmp_precedence(&semver(b)?)),
        Scheme::Pep440 => {
            let read = |text: &str| pep440_rs::Version::from_str(text).ok();
            Some(read(a)?.cmp(&read(b)?))
        }
        Scheme::Dpkg => dpkg::compare(a, b),
        Scheme::Rpm => {
            let is_version = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
            (is_version(a) && is_version(b)).then(|| rpm_version::rpm_evr_compare(a, b))
        }
        Scheme::Apk => apk::compare(a, b),
        Scheme::Maven => maven::compare(a, b),
        Scheme::Gem => gem::compare(a, b),
        Scheme::Composer => composer::compare(a, b),
        Scheme::NuGet => nuget::compare(a, b),
        Scheme::None => None,
    }
}

/// A semantic version. Go's begin with `v`; what is cut short, as `1.2`, ends with zeros.
fn semver(text: &str) -> Option<semver::Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at_checked(end)?;
    let missing = match numbers.matches('.').count() {
        0 => ".0.0",
        1 => ".0",
        _ => "",
    };
    semver::Version::parse(&format!("{numbers}{missing}{rest}")).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Scheme; 9] = [
        Scheme::Semver,
        Scheme::Pep440,
        Scheme::Dpkg,
        Scheme::Rpm,
        Scheme::Apk,
        Scheme::Maven,
        Scheme::Gem,
        Scheme::Composer,
        Scheme::NuGet,
    ];

    /// Checks that each version of a list is greater than those before it.
    fn ascends(scheme: Scheme, versions: &[&str]) {
        for (index, lower) in versions.iter().enumerate() {
            for higher in &versions[index + 1..] {
                assert_eq!(compare(scheme, lower, higher), Some(Ordering::Less), "{scheme:?}: {lower} < {higher}");
                assert_eq!(compare(scheme, higher, lower), Some(Ordering::Greater), "{scheme:?}: {higher} > {lower}");
            }
        }
    }

    fn equal(scheme: Scheme, versions: &[&str]) {
        for pair in versions.windows(2) {
            assert_eq!(compare(scheme, pair[0], pair[1]), Some(Ordering::Equal), "{scheme:?}: {pair:?}");
        }
    }

    #[test]
    fn semantic_versions() {
        ascends(
            Scheme::Semver,
            &["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0"],
        );
        ascends(
            Scheme::Semver,
            &["v0.0.0-20190101000000-abcdefabcdef", "v0.0.0-20210101000000-abcdefabcdef", "v0.1.0"],
        );
        equal(Scheme::Semver, &["1.0.0+a", "1.0.0+b", "v1", "1.0"]);
        assert_eq!(compare(Scheme::Semver, "1.0.0.0", "1.0.0"), None);
    }

    #[test]
    fn pythons() {
        ascends(Scheme::Pep440, &["1.0.dev1", "1.0a1", "1.0b2", "1.0rc1", "1.0", "1.0.post1", "1.0.1", "1!0.1"]);
        equal(Scheme::Pep440, &["1.0", "1.0.0", "v1.0"]);
        assert_eq!(compare(Scheme::Pep440, "2004d", "1.0"), None);
    }

    #[test]
    fn dpkgs() {
        ascends(
            Scheme::Dpkg,
            &[
                "1.0~~",
                "1.0~~a",
                "1.0~",
                "1.0~rc1-1",
                "1.0-1",
                "1.0-1+deb12u1",
                "1.0-2",
                "1.0a",
                "1.0+b",
                "1.0.1",
                "1.2",
                "1.10",
                "1:0.1",
            ],
        );
        equal(Scheme::Dpkg, &["0:1.0-1", "1.0-1", "1.00-01"]);
        assert_eq!(compare(Scheme::Dpkg, "<unfixed>", "1"), None);
    }

    #[test]
    fn rpms() {
        ascends(Scheme::Rpm, &["1.0~rc1-1", "1.0-1", "1.0^git1-1", "1.0.1-1", "1.10-1.el9", "1:0.5-1"]);
        equal(Scheme::Rpm, &["0:1.0-1", "1.0-1"]);
    }

    #[test]
    fn alpines() {
        ascends(
            Scheme::Apk,
            &[
                "1.0_alpha1",
                "1.0_beta",
                "1.0_pre2",
                "1.0_rc1",
                "1.0",
                "1.0-r1",
                "1.0-r10",
                "1.0_git2",
                "1.0_p1",
                "1.0a",
                "1.0.1",
                "1.2",
                "1.10",
            ],
        );
        assert_eq!(compare(Scheme::Apk, "1.0_zeta", "1.0"), None);
    }

    #[test]
    fn mavens() {
        ascends(
            Scheme::Maven,
            &[
                "1-alpha-1",
                "1-alpha-2",
                "1-beta-1",
                "1-milestone-1",
                "1-rc1",
                "1-SNAPSHOT",
                "1",
                "1-sp",
                "1-foo2",
                "1-foo10",
                "1-1",
                "1.1",
            ],
        );
        ascends(Scheme::Maven, &["1.0-a1", "1.0-b1", "1.0-M3", "1.0-cr2", "1.0"]);
        ascends(Scheme::Maven, &["2.9.10", "2.9.10.1", "2.9.10.8", "2.10.0"]);
        ascends(Scheme::Maven, &["5.3.2", "5.3.18.RELEASE", "6.0.0"]);
        equal(Scheme::Maven, &["1", "1.0", "1.0.0", "1-ga", "1.0-final", "1.0.RELEASE"]);
        equal(Scheme::Maven, &["1-rc", "1-cr", "1.rc"]);
    }

    #[test]
    fn gems() {
        ascends(Scheme::Gem, &["1.0.a", "1.0.b1", "1.0.rc1", "1.0", "1.0.1", "1.9", "1.10"]);
        ascends(Scheme::Gem, &["1.0.0-java1", "1.0.0"]);
        equal(Scheme::Gem, &["1", "1.0", "1.0.0"]);
        assert_eq!(compare(Scheme::Gem, "junk", "1"), None);
    }

    #[test]
    fn composers() {
        ascends(
            Scheme::Composer,
            &["1.0.0-dev", "1.0.0-alpha1", "1.0.0-beta2", "1.0.0-RC1", "1.0.0", "1.0.0-p1", "1.0.1", "1.10"],
        );
        equal(Scheme::Composer, &["v1.0.0", "1.0.0", "1.0.0+build"]);
        assert_eq!(compare(Scheme::Composer, "dev-main", "1.0"), None);
    }

    #[test]
    fn nugets() {
        ascends(Scheme::NuGet, &["1.0.0-alpha", "1.0.0", "1.0.0.1", "1.0.1", "1.10.0"]);
        equal(Scheme::NuGet, &["1.0", "1.0.0", "1.0.0.0", "1.0.0+x"]);
    }

    /// Versions as projects write them, and nearly so.
    fn version() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[0-9]{1,3}",
            "[a-c]{1,2}",
            "(alpha|beta|rc|pre|dev|sp|final|snapshot|post|git|p|r)[0-9]{0,2}",
        ];
        (0_u32..20, prop::collection::vec((prop_oneof!["\\.", "-", "_", "\\+", "~", ""], part), 0..4)).prop_map(
            |(first, rest)| {
                rest.into_iter().fold(first.to_string(), |text, (separator, part)| format!("{text}{separator}{part}"))
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn every_order_is_one(a in version(), b in version(), c in version()) {
            for scheme in ALL {
                let of = |a: &str, b: &str| compare(scheme, a, b);
                prop_assert_eq!(of(&a, &b), of(&b, &a).map(Ordering::reverse), "{:?}: {} {}", scheme, &a, &b);
                if of(&a, &a).is_some() {
                    prop_assert_eq!(of(&a, &a), Some(Ordering::Equal));
                }
                if let (Some(first), Some(second)) = (of(&a, &b), of(&b, &c))
                    && (first == second || second == Ordering::Equal)
                {
                    prop_assert_eq!(of(&a, &c), Some(first), "{:?}: {} {} {}", scheme, &a, &b, &c);
                }
            }
        }

        #[test]
        fn no_text_panics(a: String, b: String) {
            for scheme in ALL {
                let _ = compare(scheme, &a, &b);
            }
        }
    }
}
