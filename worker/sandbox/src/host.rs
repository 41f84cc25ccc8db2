//! The parts of the machine that an action sees: system directories and, for a step with network access, the network's
//! configuration.
//!
//! Invariant: the list contains nothing of the worker's users, no key, no socket and no state directory. Package tools'
//! configuration files are shown without credentials, unless the worker is configured to share its user's with every
//! step.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_proto::secret;
use zeroize::Zeroizing;

use super::spec::{Bind, Source};
use super::{Config, Tools};
use kiln_executor::{BUILD, HOME};

/// System directories, shown read-only.
const SYSTEM: [&str; 3] = ["/usr", "/opt", "/nix/store"];
/// On systems with a merged `/usr` these are links into it.
const LINKED: [&str; 7] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libexec"];
/// The parts of `/etc` that compilers and interpreters read. The rest stays hidden, because it holds keys.
const ETC: [&str; 38] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "default/java",
    "fonts",
    "gai.conf",
    "gitconfig",
    "gradle",
    "host.conf",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "magic.mime",
    "maven",
    "mime.types",
    "networks",
    "os-release",
    "perl",
    "php/8.2/cli",
    "php/8.2/mods-available",
    "php/8.3/cli",
    "php/8.3/mods-available",
    "php/8.4/cli",
    "php/8.4/mods-available",
    "pki/tls/certs",
    "protocols",
    "python3",
    "python3.11",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];
/// Trusted certificate authorities, below `/etc`.
const AUTHORITIES: &str = "ssl/certs";
/// Data of installed packages outside `/usr`.
const VAR: [&str; 1] = ["/var/lib/gems"];
/// Additional parts of `/etc` for a step with network access.
const NETWORK_ETC: [&str; 4] = ["hosts", "npmrc", "pip.conf", "wgetrc"];
/// Package tools' configuration files in the worker's home, and where they appear in the action's.
const NETWORK_HOME: [&str; 14] = [
    ".bundle/config",
    ".config/go/env",
    ".config/pip/pip.conf",
    ".config/uv/uv.toml",
    ".config/pypoetry/config.toml",
    ".gradle/gradle.properties",
    ".gradle/init.gradle",
    ".gradle/init.d",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".npmrc",
    ".pip/pip.conf",
    ".yarnrc",
    ".yarnrc.yml",
];
/// Variables that configure how the network is reached and which certificates are trusted.
const NETWORK_VARIABLES: [&str; 30] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NIX_SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "PIP_CERT",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_TRUSTED_HOST",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "GOFLAGS",
    "BUNDLE_MIRROR__ALL",
];
/// Largest configuration file that is read: all of them share one in-memory file system.
const MAX_CONFIGURATION_BYTES: usize = 256 << 10;
/// Prefixes of variables that are passed on whatever follows.
const NETWORK_PREFIXES: [&str; 9] = [
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX",
    "UV_FIND_LINKS",
    "NPM_CONFIG_",
    "npm_config_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "YARN_NPM_",
];

/// What this machine provides to actions.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    /// For every action.
    pub(super) binds: Vec<Bind>,
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// For an action with network access, in addition.
    pub(super) network_binds: Vec<Bind>,
    pub(super) network_environment: BTreeMap<String, String>,
    /// Files whose content differs from what is on the machine.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) network_files: Vec<(PathBuf, String)>,
    /// Strings masked in the output of an action with network access: proxy passwords and any credentials that are
    /// passed on.
    pub(super) secrets: Vec<Zeroizing<String>>,
    /// Whether the recorder can be loaded into dynamic programs.
    pub(super) loads_recorder: bool,
    /// Whether the credentials of the worker's user are passed on too.
    own_credentials: bool,
}

fn read_only(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Bind {
    let from = from.into();
    Bind {
        is_directory: from.is_dir(),
        is_public: is_public(&from),
        from: Source::Path(from),
        to: to.into(),
        writable: false,
    }
}

fn path_of(bind: &Bind) -> Option<&Path> {
    match &bind.from {
        Source::Path(path) => Some(path),
        _ => None,
    }
}

/// Whether every user of the machine can reach and read this path.
fn is_public(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let allows = |path: &Path, bits: u32| path.metadata().is_ok_and(|data| data.mode() & bits == bits);
    let bits = if path.is_dir() { 0o5 } else { 0o4 };
    allows(path, bits) && path.ancestors().skip(1).all(|above| allows(above, 0o1))
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Resolves a path within a root: links are followed as if the root were `/`.
pub fn within(root: &Path, path: &Path) -> Option<PathBuf> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let file = openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).ok()
}

/// Whether the programs of a root are of the worker's own architecture.
fn is_of_this_machine(root: &Path) -> bool {
    let machine = |path: &Path| {
        let mut header = [0; 20];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header)).ok()?;
        // `e_machine` of an ELF header (elf(5)).
        Some([header[18], header[19]])
    };
    let shell = within(root, Path::new("bin/sh")).and_then(|shell| machine(&shell));
    shell.is_some() && shell == machine(Path::new("/proc/self/exe"))
}

/// Whether a certificate file also holds a private key.
fn holds_a_key(path: &Path) -> bool {
    path.is_file() && std::fs::read(path).is_ok_and(|data| data.windows(11).any(|part| part == b"PRIVATE KEY"))
}

fn etc(root: &Path, name: &str) -> Option<Bind> {
    let path = Path::new("/etc").join(name);
    // The link is followed here, because its target may lie where the sandbox does not look.
    Some(read_only(within(root, &path)?, path))
}

impl Host {
    /// Inspects the machine, or another root in place of its system directories.
    pub(super) fn look(config: &Config) -> Self {
        let tools: &Tools = &config.tools;
        let mut host = Host { own_credentials: config.own_credentials, ..Host::default() };
        let root = config.root.as_deref().unwrap_or(Path::new("/"));
        host.loads_recorder = !kiln_recorder::LIBRARY.is_empty() && is_of_this_machine(root);
        for path in SYSTEM.into_iter().chain(VAR) {
            host.system(root, path);
        }
        for path in LINKED {
            match std::fs::read_link(inside(root, path)) {
                Ok(target) => host.links.push((path.into(), target)),
                Err(_) => host.system(root, path),
            }
        }
        for name in ETC {
            let Some(bind) = etc(root, name) else { continue };
            if name == "gitconfig" {
                let cleaned = path_of(&bind).and_then(|from| host.cleaned(from, bind.to.clone()));
                host.files.extend(cleaned);
            } else {
                host.binds.push(bind);
            }
        }
        host.links.push(("/etc/mtab".into(), "/proc/mounts".into()));
        for tool in tools.iter() {
            host.binds.push(read_only(&tool.directory, &tool.mounted));
        }
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| "/nonexistent".into());
        host.cargo(&home);
        host.network(&home);
        if root != Path::new("/") {
            // The network is the machine's, and so are its trusted authorities: a company's proxy may have its own.
            host.network_binds.extend(etc(Path::new("/"), AUTHORITIES));
        }
        host
    }

    /// What is left to be shown to an action whose sandbox has been built.
    pub(super) fn already_shown(&self) -> Self {
        Self { loads_recorder: self.loads_recorder, ..Self::default() }
    }

    /// Whether nothing for every action lies where each has its own files.
    pub(super) fn is_apart_from_jobs(&self) -> bool {
        let binds = self.binds.iter().map(|bind| &bind.to);
        let mut all = binds.chain(self.links.iter().map(|(at, _)| at)).chain(self.files.iter().map(|(at, _)| at));
        !all.any(|path| path.starts_with("/tmp") || path.starts_with(BUILD))
    }

    fn system(&mut self, root: &Path, path: &str) {
        let from = inside(root, path);
        if from.is_dir() {
            self.binds.push(read_only(from, path));
        }
    }

    /// Cargo looks for its configuration in the project's parent directories. A step without network access needs it
    /// too: it names replacement registries, and these determine the names of the fetched sources. Credentials are in
    /// another file.
    fn cargo(&mut self, home: &Path) {
        let base = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let config = ["config.toml", "config"].map(|name| base.join(name)).into_iter().find(|path| path.is_file());
        if let Some(config) = config {
            let cleaned = self.cleaned(&config, "/.cargo/config.toml".into());
            self.files.extend(cleaned);
        }
    }

    fn network(&mut self, home: &Path) {
        for name in NETWORK_ETC.into_iter().chain(["resolv.conf"]) {
            let Some(bind) = etc(Path::new("/"), name) else { continue };
            match name {
                "hosts" | "resolv.conf" => self.network_binds.push(bind),
                _ => {
                    if let Some(from) = path_of(&bind) {
                        self.configuration(from, &bind.to);
                    }
                }
            }
        }
        for name in NETWORK_HOME {
            self.configuration(&home.join(name), &Path::new(HOME).join(name));
        }
        for (name, value) in std::env::vars() {
            let wanted = NETWORK_VARIABLES.contains(&name.as_str())
                || NETWORK_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if !wanted {
                continue;
            }
            let cleaned = kiln_mirrors::clean_variable(&name, &value);
            self.hide(cleaned.secrets);
            let Some(passed) = (if self.own_credentials { Some(value) } else { cleaned.text }) else { continue };
            // The file that a variable names is shown as well.
            for part in passed.split(':').map(Path::new).filter(|part| part.is_absolute() && part.exists()) {
                let covered = self.binds.iter().chain(&self.network_binds).any(|bind| part.starts_with(&bind.to));
                let Ok(from) = part.canonicalize() else { continue };
                match (covered, kiln_mirrors::is_trust(&name), from.is_dir()) {
                    (true, ..) => {}
                    (false, true, false) if holds_a_key(&from) && !self.own_credentials => {}
                    // A directory with packages or certificates.
                    (false, _, true) | (false, true, _) => self.network_binds.push(read_only(from, part)),
                    (false, false, false) => self.configuration(&from, part),
                }
            }
            self.network_environment.insert(name, passed);
        }
    }

    /// Adds a package tool's configuration file, or each file of a directory.
    fn configuration(&mut self, from: &Path, to: &Path) {
        if from.is_dir() {
            for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
                self.configuration(&entry.path(), &to.join(entry.file_name()));
            }
            return;
        }
        let cleaned = self.cleaned(from, to.to_owned());
        self.network_files.extend(cleaned);
    }

    /// The part of a file that an action may see, at this path.
    fn cleaned(&mut self, from: &Path, to: PathBuf) -> Option<(PathBuf, String)> {
        let text = std::fs::read_to_string(from).ok().filter(|text| text.len() <= MAX_CONFIGURATION_BYTES)?;
        let kiln_mirrors::Cleaned { text: passed, secrets } = kiln_mirrors::clean_file(from, &text);
        self.hide(secrets);
        let passed = if self.own_credentials { Some(text) } else { passed };
        passed.map(|passed| (to, passed))
    }

    fn hide(&mut self, secrets: Vec<String>) {
        let usable = secrets.into_iter().filter(|value| secret::problem(value).is_none());
        self.secrets.extend(usable.map(Zeroizing::new));
    }
}
