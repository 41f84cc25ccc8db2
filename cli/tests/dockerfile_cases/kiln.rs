//! Cases on one farm of real processes.

use kiln_harness::bases::{busybox_layout, debian_layout};
use kiln_harness::{Built, Farm, copy, find};

use crate::case::Case;
use crate::check;
use crate::image::Image;
use crate::runs;
use crate::serve::Server;

/// What all cases share.
pub struct Lane {
    farm: Farm,
    /// The layout of the image `base`.
    base: tempfile::TempDir,
    image: Image,
    server: Server,
}

impl Lane {
    /// `None`, with a message, if this machine lacks something.
    pub fn new(cases: &[Case]) -> Option<Self> {
        let base = tempfile::tempdir().unwrap();
        match cases.first()?.expect.base.as_deref() {
            Some("debian") => {
                copy(debian_layout()?, base.path());
            }
            _ => busybox_layout(base.path())?,
        }
        let farm = Farm::start(&[]);
        // Cases download from this machine, which is closed to steps otherwise.
        for name in ["one", "two"] {
            farm.start_worker_with(name, &["--network-isolation", "off"]);
        }
        farm.wait_for_worker("one");
        farm.wait_for_worker("two");
        Some(Self { image: Image::of_layout(base.path()), farm, base, server: Server::start() })
    }

    /// What of a case is not as it says, unless the case says that Kiln lacks it.
    pub fn problems(&self, case: &Case) -> Vec<String> {
        let found = self.differences(case);
        match &case.expect.lacks {
            Some(what) => {
                if found.is_empty() {
                    eprintln!("{}: Kiln does it by now, although the case says: {what}", case.name);
                }
                Vec::new()
            }
            None => found,
        }
    }

    fn differences(&self, case: &Case) -> Vec<String> {
        let dir = case.prepared();
        let server = self.server.serve(&case.name, &dir.path().join("served"));
        std::fs::write(dir.path().join("kiln.toml"), configuration(case, &server)).unwrap();
        // A hard link would change the file that another case is reading.
        copy(self.base.path(), &dir.path().join("base"));
        let platform = case.expect.platform.iter().flat_map(|platform| ["--platform", platform]);
        let built = self.farm.build(dir.path(), &platform.collect::<Vec<_>>());
        let Some(refusal) = &case.expect.error else {
            if built.0.code != 0 {
                return vec![format!("it was refused: {}", said(&built))];
            }
            let Some(found) = find(&dir.path().join("kiln-out"), "index.json") else {
                return vec!["there is no image".to_owned()];
            };
            let layout = found.parent().unwrap();
            let image = Image::of_layout(layout);
            let mut problems = check::image(case, &image, &self.image, &server);
            problems.extend(runs::problems(case, layout, &image.config, &self.farm));
            let warnings = rules(&built.of_type("warning"));
            if warnings != case.expect.warnings {
                problems.push(format!("expected the findings {:?}, found {warnings:?}", case.expect.warnings));
            }
            return problems;
        };
        match built.0.code {
            0 => vec!["it was built".to_owned()],
            1 | 2 => check::error(refusal, &said(&built)),
            code => vec![format!("expected the exit code 1, found {code}: {}", said(&built))],
        }
    }
}

/// What a user is told.
fn said(built: &Built) -> String {
    let messages = built.of_type("build_finished");
    let messages = messages.iter().filter_map(|event| event["message"].as_str());
    [messages.collect::<Vec<_>>().join("\n"), built.log(), built.0.err.clone()].join("\n")
}

/// The rules of `docker build --check` that warnings name, sorted.
fn rules(warnings: &[serde_json::Value]) -> Vec<String> {
    let names = warnings.iter().filter_map(|warning| {
        let (_, name) = warning["text"].as_str()?.strip_suffix("`)")?.rsplit_once("(`")?;
        Some(name.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn configuration(case: &Case, server: &str) -> String {
    let expect = &case.expect;
    let mut artifact = toml::Table::new();
    let mut set = |name: &str, value: toml::Value| drop(artifact.insert(name.to_owned(), value));
    let texts = |map: &std::collections::BTreeMap<String, String>| -> toml::Table {
        map.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect()
    };
    set("dockerfile", "Dockerfile".into());
    set("context", "context".into());
    if let Some(target) = &expect.target {
        set("target", target.clone().into());
    }
    let mut args = texts(&expect.args);
    args.insert("SERVER".to_owned(), server.into());
    set("args", args.into());
    set("labels", texts(&expect.labels).into());
    let mut contexts = texts(&expect.contexts);
    contexts.insert("base".to_owned(), "oci-layout://base".into());
    set("contexts", contexts.into());
    let artifacts = toml::Table::from_iter([("app".to_owned(), artifact.into())]);
    let whole =
        toml::Table::from_iter([("version".to_owned(), "1".into()), ("artifacts".to_owned(), artifacts.into())]);
    toml::to_string(&whole).unwrap()
}
