//! The examples of each language: what Kiln detects builds the same again.

use kiln_harness::{Built, cannot_run, example};

use crate::{again, compared, farm};

/// Those that are proven in every run of the tests; `.ci/long` proves all.
const PROVEN: [&str; 5] = ["c-make", "go", "node-npm", "python-pip", "java-plain"];

/// What a build says if the machine lacks the example's tool, or its registry cannot be reached.
const ABSENT: [&str; 6] = [
    "has no `",
    "Could not transfer",
    "Unknown host",
    "NoPluginFoundForPrefix",
    "repo.maven.apache.org",
    "there is no tool",
];

fn prove(name: &str) {
    let dir = example(name);
    if name == "java-maven" {
        kiln_harness::project::use_debian(dir.path());
    }
    let built: Built = farm().build(dir.path(), &["--verify-reproducible"]);
    let said = format!("{}\n{}", built.message(), built.log());
    if built.0.code != 0 && built.of_type("artifact").is_empty() && ABSENT.iter().any(|words| said.contains(words)) {
        return cannot_run(&format!("the tool or the registry of {name}"));
    }
    let different: Vec<_> = again(&built).into_iter().filter(|(_, step)| step["outcome"] != "same").collect();
    assert_eq!(built.0.code, 0, "{name}: {different:#?}\n{}", built.message());
    assert_eq!(compared(&built)["outcome"], "same", "{name}");
    assert!(!again(&built).is_empty(), "{name}: nothing ran again");
}

#[test]
fn some_examples_are_reproducible() {
    PROVEN.into_iter().for_each(prove);
}

/// `.ci/long` runs this.
mod long {
    use super::*;

    #[test]
    #[ignore = "long: run by .ci/long"]
    fn all_examples_are_reproducible() {
        let examples = kiln_harness::workspace().join("cli/examples");
        let mut names: Vec<String> = std::fs::read_dir(examples)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(names.len() > 20, "{names:?}");
        names.iter().for_each(|name| prove(name));
    }
}
