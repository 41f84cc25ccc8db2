//! Probes this machine, or the root that its actions run on: operating system, libc, architecture, CPU, tools, packages.
//!
//! Invariant: the fingerprint covers what can change the bytes of a build, and nothing that differs between two
//! machines that are set up alike, such as the kernel, the host name, the CPU level or labels.

mod checks;
mod guest;
mod machine;
mod packages;
mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_proto::digest::DigestFunction;
use kiln_proto::{property, v1};

pub use checks::{checks, docker};
pub use guest::Error;
pub use machine::capacity;
pub use packages::stamp;

use kiln_sandbox::Sandbox;

/// Options of the probe.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Labels from the worker's configuration.
    pub labels: BTreeMap<String, String>,
    /// This machine's directories that hold an action's tools, in the form of `PATH`.
    pub path: String,
    /// Directory where results are remembered between starts.
    pub cache: Option<PathBuf>,
}

impl Options {
    fn tools_cache(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join("tools.json"))
    }

    fn packages_cache(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join("packages"))
    }
}

/// Facts that can change the bytes of a build, and that a build may require.
#[derive(Debug, Clone)]
struct Facts {
    os: String,
    libc: String,
    isa: String,
    cpu_level: String,
    tools: BTreeMap<String, String>,
    /// Digest of the installed packages, headers and libraries.
    packages: String,
    cpu: String,
    emulated: bool,
}

/// Probes the machine. Takes some seconds the first time, because each tool is asked for its version.
pub fn probe(options: &Options) -> v1::Environment {
    let facts = Facts {
        os: machine::os(),
        libc: machine::libc(),
        isa: machine::isa(),
        cpu_level: machine::cpu_level(),
        tools: tools::versions(&options.path, options.tools_cache().as_deref()),
        packages: packages::digest(Path::new("/"), options.packages_cache().as_deref(), packages::ask_rpm),
        cpu: machine::cpu(),
        emulated: false,
    };
    environment(facts, options)
}

/// Probes another root file system by running its programs in a sandbox on it.
///
/// # Errors
/// If the directory is not a root file system, or its programs do not run.
pub async fn probe_root(sandbox: &Sandbox, root: &Path, options: &Options) -> Result<v1::Environment, Error> {
    Ok(environment(guest::facts(sandbox, root, options).await?, options))
}

fn environment(facts: Facts, options: &Options) -> v1::Environment {
    let Facts { os, libc, isa, cpu_level, tools, packages, cpu, emulated } = facts;
    let mut text = format!("{os}\n{libc}\n{isa}\n{packages}\n");
    if emulated {
        text.push_str("emulated\n");
    }
    for (name, version) in &tools {
        text.push_str(&format!("{name}\t{version}\n"));
    }
    v1::Environment {
        fingerprint: DigestFunction::Sha256.digest(text.as_bytes()).hex()[..32].to_owned(),
        isa,
        os,
        libc,
        cpu_level,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        tools: tools.into_iter().collect(),
        labels: options.labels.clone().into_iter().collect(),
        sandbox: String::new(),
        path: String::new(),
        emulated,
        executors: Vec::new(),
        docker: String::new(),
        node_properties: vec![property::UNIX_MODE.to_owned()],
        packages,
        cpu,
        roots: String::new(),
        host_network: false,
        calls: 0,
        checks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_change_the_fingerprint_and_a_missing_tool_does() {
        let path = "/usr/local/bin:/usr/bin:/bin".to_owned();
        let plain = probe(&Options { path: path.clone(), ..Options::default() });
        let labelled =
            probe(&Options { path, labels: BTreeMap::from([("gpu".into(), "1".into())]), ..Options::default() });
        assert_eq!(plain.fingerprint, labelled.fingerprint);
        assert!(plain.tools.contains_key("cc"), "expected a C compiler among {:?}", plain.tools);
        let bare = probe(&Options::default());
        assert!(bare.tools.is_empty());
        assert_ne!(plain.fingerprint, bare.fingerprint);
    }

    #[test]
    fn this_machine_has_an_os_a_libc_and_an_isa() {
        let environment = probe(&Options::default());
        assert!(environment.os.contains(':') || !environment.os.is_empty(), "{environment:?}");
        assert!(environment.libc.starts_with("glibc:2.") || environment.libc.starts_with("musl:"), "{environment:?}");
        assert!(["x86-64", "arm-a64"].contains(&environment.isa.as_str()), "{environment:?}");
    }
}
