//! A file's build, in a form that tests can compare.

use std::collections::BTreeMap;

use kiln_dockerfile::config::{Config, History, Image, RootFs};
use kiln_dockerfile::{
    BaseImage, Bases, Build, Dockerfile, Error, Operator, Options, Platform, Resolved, Run, bases, lower, parse,
};

/// Options for linux/amd64.
pub fn options() -> Options {
    Options { build_platform: Platform::linux("amd64"), ..Options::default() }
}

/// An image with one layer.
pub fn image(config: Config) -> Image {
    Image {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        rootfs: RootFs { diff_ids: vec!["sha256:1".to_owned()], ..RootFs::default() },
        history: vec![History { created_by: "base".to_owned(), ..History::default() }],
        config,
        ..Image::default()
    }
}

pub fn file(text: &str) -> Dockerfile {
    parse("Dockerfile", text).unwrap_or_else(|error| panic!("{}", error.render(false)))
}

/// Lowers a file, whose base images are those given, by their short names, or have an empty configuration.
pub fn lowered(text: &str, options: &Options, images: &[(&str, Config)]) -> Result<Build, Error> {
    let file = parse("Dockerfile", text)?;
    let images: BTreeMap<String, &Config> =
        images.iter().map(|(name, config)| (format!("docker.io/library/{name}:latest"), config)).collect();
    let mut known = Bases::new();
    for _ in 0..10 {
        let wanted: Vec<BaseImage> = bases(&file, options, &known)?;
        if wanted.is_empty() {
            return lower(&file, options, &known);
        }
        for base in wanted {
            let config = images.get(&base.reference.show(None)).map(|config| (*config).clone()).unwrap_or_default();
            let mut image = image(config);
            (image.os, image.architecture) = (base.platform.os.clone(), base.platform.architecture.clone());
            known.add(base, Resolved { image, digest: None });
        }
    }
    panic!("expected the list of base images to end");
}

pub fn build_with(text: &str, options: &Options) -> Build {
    lowered(text, options, &[]).unwrap_or_else(|error| panic!("{}", error.render(false)))
}

pub fn build(text: &str) -> Build {
    build_with(text, &options())
}

/// The message of a file that cannot be built, with its line and its advice.
pub fn error_with(text: &str, options: &Options) -> String {
    match lowered(text, options, &[]) {
        Ok(_) => panic!("expected an error for:\n{text}"),
        Err(error) => error.to_string().strip_prefix("Dockerfile:").unwrap().to_owned(),
    }
}

pub fn error(text: &str) -> String {
    error_with(text, &options())
}

/// The `RUN`s of a build.
pub fn runs(build: &Build) -> Vec<&Run> {
    let runs = build.operations.iter().map(|operation| match &operation.kind {
        Operator::Run(run) => Some(run),
        _ => None,
    });
    runs.flatten().collect()
}

/// The instructions that made an image, without its base's. Those with a layer are marked.
pub fn history(build: &Build) -> Vec<String> {
    let own = build.image.history[build.inherited_history..].iter();
    own.map(|entry| format!("{}{}", if entry.empty_layer { "" } else { "* " }, entry.created_by)).collect()
}

/// The value of a variable in a `RUN`.
pub fn variable<'a>(run: &'a Run, name: &str) -> Option<&'a str> {
    run.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
