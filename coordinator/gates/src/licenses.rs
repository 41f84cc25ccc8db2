//! A policy for the licences of what an artifact consists of. Source: SPDX licence expressions 2.3, annex D.

use std::collections::{BTreeMap, BTreeSet};

use spdx::{Expression, LicenseReq, ParseMode};

use crate::components::Component;
use crate::{Level, Verdict};

/// What is allowed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The ids that are allowed; empty: all that are not denied.
    pub allow: Vec<String>,
    /// Those that are not.
    pub deny: Vec<String>,
    /// Expressions for packages whose bill of materials has none, by name or package URL.
    pub known: BTreeMap<String, String>,
    /// Whether a package of unknown licence fails.
    pub unknown_fails: bool,
}

/// A policy that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// SPDX has no such licence.
    #[error("`{0}` is no SPDX licence id; expected one such as `Apache-2.0` or `LicenseRef-ours`{1}")]
    Id(String, String),
    /// Neither list has anything.
    #[error("the policy allows and denies nothing: name licences to allow or to deny")]
    Empty,
    /// An expression that cannot be read.
    #[error("the licence of `{package}` is given as `{expression}`, which is no SPDX expression: {reason}")]
    Known {
        /// The package.
        package: String,
        /// What it is given as.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Policy {
    /// Checks that it means something.
    ///
    /// # Errors
    /// What does not.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        if self.allow.is_empty() && self.deny.is_empty() {
            return Err(InvalidPolicy::Empty);
        }
        for id in self.allow.iter().chain(&self.deny) {
            let bare = id.split_once(" WITH ").map_or(id.as_str(), |(bare, _)| bare);
            let is_known =
                spdx::license_id(bare).is_some() || bare.starts_with("LicenseRef-") || bare.starts_with("DocumentRef-");
            if !is_known {
                let near = spdx::imprecise_license_id(bare).map(|(near, _)| format!("; did you mean `{}`?", near.name));
                return Err(InvalidPolicy::Id(id.clone(), near.unwrap_or_default()));
            }
        }
        for (package, expression) in &self.known {
            read(expression).map_err(|reason| InvalidPolicy::Known {
                package: package.clone(),
                expression: expression.clone(),
                reason,
            })?;
        }
        Ok(())
    }

    fn allows(&self, requirement: &LicenseReq) -> bool {
        let names = names(requirement);
        let has = |list: &[String]| list.iter().any(|id| names.contains(id.as_str()));
        !has(&self.deny) && (self.allow.is_empty() || has(&self.allow))
    }
}

/// The ids that a requirement may be listed as: with its exception and without, because an exception only permits more.
fn names(requirement: &LicenseReq) -> BTreeSet<String> {
    let license = requirement.license.to_string();
    let mut found: BTreeSet<String> = [requirement.to_string(), license.clone()].into();
    if let Some(id) = requirement.license.id() {
        found.insert(id.name.to_owned());
    }
    // Names of GNU's licences before they were told apart.
    if let Some(bare) = license.strip_suffix("-only") {
        found.insert(bare.to_owned());
    }
    found
}

/// Reads an expression as registries have them: `MIT/Apache-2.0` is a choice, and imprecise names are understood.
fn read(text: &str) -> Result<Expression, String> {
    let mode = ParseMode { allow_deprecated: true, ..ParseMode::LAX };
    Expression::parse_mode(text, mode).map_err(|error| error.reason.to_string())
}

/// Whether a text is an expression as SPDX defines it.
pub fn is_spdx(text: &str) -> bool {
    Expression::parse(text).is_ok()
}

/// Checks components against a valid policy.
pub fn check(components: &[Component], policy: &Policy) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut fine, mut used) = (0_usize, BTreeSet::new());
    for component in components.iter().filter(|component| !component.is_excluded && !component.purl.is_empty()) {
        let bare = component.purl.split('?').next().unwrap_or_default();
        let known = [component.purl.as_str(), bare, component.name.as_str()].into_iter().find_map(|key| {
            let expression = policy.known.get(key)?;
            used.insert(key.to_owned());
            Some(expression.clone())
        });
        let expressions =
            if component.licenses.is_empty() { known.into_iter().collect() } else { component.licenses.clone() };
        if expressions.is_empty() {
            let words = "its licence is unknown: name it in `known`";
            verdict.unknown(policy.unknown_fails, component.shown(), words);
        }
        for expression in &expressions {
            match read(expression) {
                Ok(read) => match read.evaluate_with_failures(|requirement| policy.allows(requirement)) {
                    Ok(()) => fine = fine.saturating_add(1),
                    Err(failed) => {
                        let failed: BTreeSet<String> = failed.iter().map(|failed| failed.req.to_string()).collect();
                        let failed = failed.into_iter().collect::<Vec<_>>().join(", ");
                        let words = match *expression == failed {
                            true => format!("{failed} is not allowed"),
                            false => format!("of its licence {expression}, {failed} is not allowed"),
                        };
                        verdict.add(Level::Forbidden, component.shown(), words);
                    }
                },
                Err(reason) => {
                    let words = format!("its licence `{expression}` is no SPDX expression ({reason})");
                    verdict.unknown(policy.unknown_fails, component.shown(), words);
                }
            }
        }
    }
    for key in policy.known.keys().filter(|key| !used.contains(*key)) {
        verdict.add(Level::Note, key.clone(), "is in `known` and not in the artifact");
    }
    verdict.add(Level::Note, "licences", format!("{fine} are allowed"));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, components};

    fn package(name: &str, license: &str) -> String {
        let licenses =
            if license.is_empty() { String::new() } else { format!(r#","licenses":[{{"expression":"{license}"}}]"#) };
        format!(r#"{{"name":"{name}","purl":"pkg:cargo/{name}@1.0.0"{licenses}}}"#)
    }

    fn checked(packages: &[(&str, &str)], policy: &Policy) -> Verdict {
        let packages: Vec<String> = packages.iter().map(|(name, license)| package(name, license)).collect();
        let sbom = format!(r#"{{"bomFormat":"CycloneDX","components":[{}]}}"#, packages.join(","));
        check(&components(sbom.as_bytes()).unwrap(), policy)
    }

    fn allowing(ids: &[&str]) -> Policy {
        Policy { allow: ids.iter().map(|id| (*id).to_owned()).collect(), unknown_fails: true, ..Policy::default() }
    }

    #[test]
    fn one_allowed_branch_of_a_choice_is_enough_and_all_of_a_conjunction_are_needed() {
        let policy = allowing(&["MIT", "Apache-2.0"]);
        let outcome = |license: &str| checked(&[("a", license)], &policy).outcome();
        for fine in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "MIT/Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "(MIT AND Apache-2.0) OR GPL-2.0",
        ] {
            assert_eq!(outcome(fine), Outcome::Passed, "{fine}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "LicenseRef-own"] {
            assert_eq!(outcome(bad), Outcome::Failed, "{bad}");
        }
        let verdict = checked(&[("a", "MIT AND GPL-3.0-only")], &policy);
        assert_eq!(
            verdict.message().as_deref(),
            Some("a 1.0.0: of its licence MIT AND GPL-3.0-only, GPL-3.0-only is not allowed")
        );
    }

    #[test]
    fn what_is_denied_is_denied_by_whatever_name_it_has() {
        let policy = Policy { deny: vec!["GPL-2.0".to_owned(), "AGPL-3.0-or-later".to_owned()], ..Policy::default() };
        for bad in ["GPL-2.0-only", "GPL-2.0", "AGPL-3.0-or-later"] {
            assert_eq!(checked(&[("a", bad)], &policy).outcome(), Outcome::Failed, "{bad}");
        }
        assert_eq!(checked(&[("a", "MIT")], &policy).outcome(), Outcome::Passed);
    }

    #[test]
    fn an_unknown_licence_is_no_allowed_one_unless_somebody_says_what_it_is() {
        let mut policy = allowing(&["MIT"]);
        let packages = [("a", ""), ("b", "see LICENSE file")];
        assert_eq!(
            checked(&packages, &policy).findings().iter().filter(|found| found.level == Level::Unknown).count(),
            2
        );
        policy.known = [("a".to_owned(), "MIT".to_owned()), ("gone".to_owned(), "MIT".to_owned())].into();
        let verdict = checked(&packages[..1], &policy);
        assert_eq!(verdict.outcome(), Outcome::Passed);
        assert!(verdict.text().contains("gone: is in `known` and not in the artifact"));
        policy.unknown_fails = false;
        assert_eq!(checked(&packages, &policy).outcome(), Outcome::Warned);
    }

    #[test]
    fn a_policy_names_licences_that_exist() {
        assert_eq!(
            allowing(&["MIT", "LicenseRef-ours", "GPL-2.0-only WITH Classpath-exception-2.0"]).validate(),
            Ok(())
        );
        let wrong = allowing(&["Apache 2"]).validate().unwrap_err().to_string();
        assert!(wrong.contains("`Apache 2` is no SPDX licence id") && wrong.contains("`Apache-2.0`"), "{wrong}");
        assert_eq!(Policy::default().validate(), Err(InvalidPolicy::Empty));
        let known = [("a".to_owned(), "MIT OR".to_owned())].into();
        assert!(Policy { known, ..allowing(&["MIT"]) }.validate().unwrap_err().to_string().contains("`MIT OR`"));
    }

    proptest::proptest! {
        #[test]
        fn no_expression_panics(text: String) {
            let _ = read(&text);
        }
    }
}
