//! Toolchains: the images that a farm has for languages and their versions, in which detected steps run.

use std::collections::BTreeMap;
use std::str::FromStr;

use kiln_detect::Language;
use kiln_plan::{Part, Plan, Step, Tool};

/// Images by language and version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toolchains {
    /// Sorted by language, the newest version first; the one for any version last.
    known: Vec<(Language, String, String)>,
}

/// A toolchain that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("toolchain `{name}`: expected a language and optionally a version, such as `go 1.25` or `python`")]
pub struct InvalidToolchain {
    name: String,
}

impl Toolchains {
    /// Reads images by `LANGUAGE` or `LANGUAGE VERSION`.
    ///
    /// # Errors
    /// If a name is neither.
    pub fn read<'a>(given: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Self, InvalidToolchain> {
        let mut known = Vec::new();
        for (name, image) in given {
            let invalid = || InvalidToolchain { name: name.clone() };
            let (language, version) = name.trim().split_once(char::is_whitespace).unwrap_or((name.trim(), ""));
            let language = Language::from_str(language).map_err(|_| invalid())?;
            let version = version.trim();
            if !version.is_empty() && numbers(version).is_empty() {
                return Err(invalid());
            }
            known.push((language, version.to_owned(), image.clone()));
        }
        known.sort_by(|a, b| a.0.name().cmp(b.0.name()).then_with(|| numbers(&b.1).cmp(&numbers(&a.1))));
        Ok(Self { known })
    }

    /// The same as pairs.
    pub fn pairs(&self) -> BTreeMap<String, String> {
        let name = |language: &Language, version: &str| format!("{language} {version}").trim_end().to_owned();
        self.known.iter().map(|(language, version, image)| (name(language, version), image.clone())).collect()
    }

    /// The image for a language whose tool has this entry in a step's `tools`.
    fn image(&self, language: Language, entry: &str) -> Option<&str> {
        let tool = Tool::read(entry);
        let pinned = entry.split_whitespace().nth(1).is_some();
        let of = self.known.iter().filter(|(known, ..)| *known == language);
        let mut fitting = of.filter(|(_, version, _)| match version.is_empty() {
            true => !pinned,
            false => pinned && tool.unmet(version).is_none(),
        });
        fitting.next().map(|(.., image)| image.as_str())
    }
}

/// The numbers of a version; none if it is not one.
fn numbers(version: &str) -> Vec<u64> {
    let parts: Result<Vec<u64>, _> = version.split('.').map(str::parse).collect();
    parts.unwrap_or_default()
}

/// The tool that shows a language's version.
fn tools(language: Language) -> &'static [&'static str] {
    match language {
        Language::Rust => &["cargo", "rustc"],
        Language::Go => &["go"],
        Language::Java => &["javac", "java", "mvn", "gradle"],
        Language::Node => &["node", "bun"],
        Language::Deno => &["deno"],
        Language::Python => &["python3"],
        Language::Ruby => &["ruby"],
        Language::Php => &["php"],
        Language::Zig => &["zig"],
        Language::Hugo => &["hugo"],
        Language::C => &["cc", "c++", "cmake"],
    }
}

/// Lets a detected plan's steps run in the farm's image for their language and version, if it has one.
pub(super) fn apply(plan: &mut Plan, toolchains: &Toolchains) {
    if plan.targets.iter().any(|target| target.image.is_some()) {
        return;
    }
    for part in plan.origin.parts().to_vec() {
        apply_to(plan, &part, toolchains);
    }
}

/// The same for the steps of one language. A step that a `kiln.toml` adds runs where those of the only language run.
fn apply_to(plan: &mut Plan, part: &Part, toolchains: &Toolchains) {
    let language = part.language.split(' ').next().and_then(|name| Language::from_str(name).ok());
    let Some(language) = language else { return };
    let only = plan.origin.parts().len() == 1;
    let is_own = |step: &Step| step.image.is_none() && (only || part.has(&step.name));
    let entries = plan.steps.iter().filter(|step| is_own(step)).flat_map(|step| &step.tools);
    let is_languages = |entry: &&String| tools(language).contains(&Tool::read(entry).name);
    // The strictest entry says what is pinned.
    let Some(entry) = entries.filter(is_languages).max_by_key(|entry| entry.len()).cloned() else { return };
    let Some(image) = toolchains.image(language, &entry).map(str::to_owned) else { return };
    for step in plan.steps.iter_mut().filter(|step| is_own(step)) {
        step.image = Some(image.clone());
    }
    plan.notes.push(match only {
        true => format!("the steps run in `{image}`, the farm's toolchain for `{entry}`"),
        false => format!("the steps of {language} run in `{image}`, the farm's toolchain for `{entry}`"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_a_pin_allows_is_chosen() {
        let given = [("go 1.24", "a"), ("go 1.25.1", "b"), ("go", "c"), ("golang 1.9", "d"), ("python 3.12", "e")];
        let given: BTreeMap<String, String> = given.map(|(name, image)| (name.to_owned(), image.to_owned())).into();
        let known = Toolchains::read(&given).unwrap();
        assert_eq!(known.image(Language::Go, "go >=1.22 (go.mod)"), Some("b"));
        assert_eq!(known.image(Language::Go, "go =1.24 (go.mod)"), Some("a"));
        assert_eq!(known.image(Language::Go, "go >=1.30"), None, "nothing has what is pinned");
        assert_eq!(known.image(Language::Go, "go"), Some("c"), "nothing is pinned");
        assert_eq!(known.image(Language::Python, "python3"), None);
        assert_eq!(known.image(Language::Python, "python3 =3.12? (.python-version)"), Some("e"));
        assert_eq!(Toolchains::read(&known.pairs()).unwrap(), known);
        for wrong in ["cobol", "go newest", ""] {
            assert!(Toolchains::read([(&wrong.to_owned(), &String::new())]).is_err(), "{wrong}");
        }
    }
}
