//! What this machine is: operating system, libc, architecture, CPU level, tools.
//!
//! Invariant: the fingerprint covers what can change the bytes of a build, and nothing that differs between two machines
//! which are set up alike: not the kernel, the host's name, its CPU level or its labels.

mod machine;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_proto::digest::DigestFunction;
use kiln_proto::v1;

pub use machine::capacity;

/// What the probe needs to know.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Labels of the worker's configuration.
    pub labels: BTreeMap<String, String>,
    /// Directories of this machine in which an action's tools are, as `PATH` has them.
    pub path: String,
    /// Where answers of tools are remembered between starts.
    pub cache: Option<PathBuf>,
}

/// Looks at the machine. Takes some seconds the first time, for tools are asked for their versions.
pub fn probe(options: &Options) -> v1::Environment {
    let tools = tools::versions(&options.path, options.cache.as_deref());
    let (os, libc, isa) = (machine::os(), machine::libc(), machine::isa());
    let mut facts = format!("{os}\n{libc}\n{isa}\n");
    for (name, version) in &tools {
        facts.push_str(&format!("{name}\t{version}\n"));
    }
    v1::Environment {
        fingerprint: DigestFunction::Sha256.digest(facts.as_bytes()).hex()[..32].to_owned(),
        isa,
        os,
        libc,
        cpu_level: machine::cpu_level(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        tools: tools.into_iter().collect(),
        labels: options.labels.clone().into_iter().collect(),
        sandbox: String::new(),
        path: String::new(),
        executors: Vec::new(),
        docker: String::new(),
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
