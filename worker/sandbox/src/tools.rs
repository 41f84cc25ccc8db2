//! Toolchains outside the system's directories, such as in a user's home, which actions would not see otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where toolchains appear in the sandbox.
const MOUNTED: &str = "/kiln/tools";
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its directory on this machine.
    pub directory: PathBuf,
    /// Where it appears in the sandbox.
    pub mounted: PathBuf,
    /// The directory of its programs, relative to `directory`.
    pub programs: &'static str,
}

/// The toolchains of this machine.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    tools: Vec<Tool>,
}

impl Tools {
    /// Finds this machine's toolchains: currently Rust's, installed by rustup. rustup's proxies would need its state;
    /// the toolchain itself does not.
    pub fn discover() -> Self {
        let mut tools = Vec::new();
        // A library that is preloaded into the worker must not affect its tools: one has made `rustc` hang.
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).env_remove("LD_PRELOAD").output();
        let sysroot = sysroot.ok().filter(|output| output.status.success());
        if let Some(output) = sysroot {
            let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
            if directory.is_absolute() && !directory.starts_with("/usr") && directory.join("bin").is_dir() {
                tools.push(Tool { directory, mounted: Path::new(MOUNTED).join("rust"), programs: "bin" });
            }
        }
        Self { tools }
    }

    /// All toolchains.
    pub fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.tools.iter()
    }

    /// `PATH` in the sandbox.
    pub fn path(&self) -> String {
        self.join(|tool| tool.mounted.join(tool.programs))
    }

    /// The same directories on this machine.
    pub fn host_path(&self) -> String {
        self.join(|tool| tool.directory.join(tool.programs))
    }

    fn join(&self, directory: impl Fn(&Tool) -> PathBuf) -> String {
        let own = self.tools.iter().map(|tool| directory(tool).display().to_string());
        own.chain([SYSTEM_PATH.to_owned()]).collect::<Vec<_>>().join(":")
    }
}
