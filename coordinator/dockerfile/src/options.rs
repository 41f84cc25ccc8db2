//! What a build is asked for, beside its Dockerfile.

use std::collections::BTreeMap;

use crate::git::GitSource;
use crate::image::context_name;
use crate::instruction::Network;
use crate::patterns::Ignore;
use crate::platform::Platform;
use crate::words::Variables;

/// What a build is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--target`: the stage to build; the last one by default.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--platform`; by default, the build platform.
    pub platform: Option<Platform>,
    /// The platform that steps run on.
    pub build_platform: Platform,
    /// `--build-context`.
    pub contexts: Contexts,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// Whether the build is for several platforms, so that names of operations tell which.
    pub multi_platform: bool,
    /// `--network`.
    pub network: Network,
    /// The main context's `.dockerignore`.
    pub ignore: Option<Ignore>,
    /// The time that `SOURCE_DATE_EPOCH` names, where it is not a number: see [`fn@crate::epoch`].
    pub epoch: Option<i64>,
    /// Lowers all stages and not only those that the target needs, as a check does.
    pub all_stages: bool,
}

/// For which stages results of earlier builds are not used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// For none.
    #[default]
    No,
    /// For all.
    All,
    /// For these.
    Stages(Vec<String>),
}

impl NoCache {
    /// Whether it names a stage, whatever the case.
    pub(crate) fn has(&self, stage: Option<&str>) -> bool {
        match self {
            Self::No => false,
            Self::All => true,
            Self::Stages(names) => stage.is_some_and(|stage| names.iter().any(|name| name.eq_ignore_ascii_case(stage))),
        }
    }
}

/// A context.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// The one that the build was started with.
    Main,
    /// One with a name.
    Named(String),
}

/// Contexts that take the place of stages and images, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contexts {
    contexts: BTreeMap<String, NamedContext>,
}

/// A context with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory.
    Local(String),
    /// An image of a registry: `docker-image://NAME`.
    Image(String),
    /// An image of an OCI layout: `oci-layout://PATH[:TAG][@DIGEST]`.
    Layout(String),
    /// An archive at a URL.
    Url(String),
    /// A repository.
    Git(GitSource),
}

impl NamedContext {
    /// Reads a value of `--build-context`.
    ///
    /// # Errors
    /// If it is a source of Git that is invalid, or a target of bake.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Some(git) = GitSource::read(text) {
            return git.map(Self::Git);
        }
        if text.starts_with("target:") {
            return Err("`target:` is only known within `docker buildx bake`".to_owned());
        }
        Ok(match text.split_once("://") {
            Some(("docker-image", name)) => Self::Image(name.to_owned()),
            Some(("oci-layout", path)) => Self::Layout(path.to_owned()),
            Some(("http" | "https", _)) => Self::Url(text.to_owned()),
            _ => Self::Local(text.to_owned()),
        })
    }
}

impl Contexts {
    /// Adds a context. Its name is normalised as an image's, so that `alpine` takes the place of
    /// `docker.io/library/alpine:latest`. `NAME::PLATFORM` is for one platform only.
    pub fn add(&mut self, name: &str, context: NamedContext) {
        self.contexts.insert(context_name(name), context);
    }

    /// The context of this name for a platform, and the name that it was given.
    pub(crate) fn find(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = context_name(name);
        let exact = self.contexts.get_key_value(&format!("{name}::{}", platform.normalized()));
        exact.or_else(|| self.contexts.get_key_value(&name)).map(|(name, context)| (name.as_str(), context))
    }
}

/// Arguments before the first stage, and those that every build has.
#[derive(Debug, Clone, Default)]
pub(crate) struct GlobalArgs {
    pub(crate) values: BTreeMap<String, String>,
}

impl Variables for GlobalArgs {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl Options {
    /// The platform that is built for.
    pub fn target_platform(&self) -> &Platform {
        self.platform.as_ref().unwrap_or(&self.build_platform)
    }

    /// The arguments that every build has.
    pub(crate) fn automatic_args(&self, target: &str) -> GlobalArgs {
        let (build, own) = (&self.build_platform, self.target_platform());
        let values = [
            ("BUILDPLATFORM", build.short()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", build.os_version.clone()),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", build.variant.clone()),
            ("TARGETPLATFORM", own.to_string()),
            ("TARGETOS", own.os.clone()),
            ("TARGETOSVERSION", own.os_version.clone()),
            ("TARGETARCH", own.architecture.clone()),
            ("TARGETVARIANT", own.variant.clone()),
            ("TARGETSTAGE", if target.is_empty() { "default".to_owned() } else { target.to_owned() }),
        ];
        let overridden = |name: &str, value| self.build_args.get(name).cloned().unwrap_or(value);
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), overridden(name, value))).collect();
        GlobalArgs { values }
    }

    /// Proxies for steps: of the build arguments, whatever their case. They are given to steps and are in no key.
    pub(crate) fn proxies(&self) -> Vec<(String, String)> {
        let mut proxies = BTreeMap::new();
        for (name, value) in &self.build_args {
            let upper = name.to_ascii_uppercase();
            if matches!(&*upper, "HTTP_PROXY" | "HTTPS_PROXY" | "FTP_PROXY" | "NO_PROXY" | "ALL_PROXY")
                && !value.is_empty()
            {
                proxies.insert(upper.to_ascii_lowercase(), value.clone());
                proxies.insert(upper, value.clone());
            }
        }
        proxies.into_iter().collect()
    }

    /// What names of cache mounts begin with.
    pub(crate) fn cache_namespace(&self) -> &str {
        self.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str)
    }
}
