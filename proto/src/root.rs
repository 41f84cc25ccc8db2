//! Actions that run in a root file system of their own: the contract between whoever makes them and the worker.
//!
//! Such an action has the property [`ROOT`]. Its input tree is an ordinary directory with the child [`ROOT_DIRECTORY`], the root as
//! an attributed tree, and, where [`MOUNTS`] has mounts with content, the child [`MOUNT_DIRECTORY`] with an attributed tree or a file for each,
//! named `0`, `1` and so on. `Command.working_directory` is a path below [`ROOT_DIRECTORY`]: `root/app` is `/app` for the command. The
//! environment is the command's; of the machine only proxy variables are added, if the action may reach the network, and `HOME` if it is
//! missing.
//!
//! An action whose working directory is [`BUILD_DIRECTORY`] or below it builds something in its root: the child [`BUILD_DIRECTORY`] of its
//! input tree is mounted at `/build`, belongs to user 1000 and may be written to. Its result has its outputs, as that of an action without
//! a root; what it changed in the root is thrown away.
//!
//! The result of any other has the directory [`LAYER_OUTPUT`], an attributed tree with whiteouts: what the command changed in its root. The file
//! [`TIMES_OUTPUT`] has the modification times of the layer's nodes. A command that failed has neither. The lease may name the times of
//! the root, and which caches its cache mounts are; neither is part of the action.

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::digest::DigestFunction;

/// The child of the input tree that is the action's root. The only value is [`ROOT_DIRECTORY`].
pub const ROOT: &str = "kiln.root";
/// Who runs the command, as in a Dockerfile's `USER`: a name or number, optionally `:` and a group. Looked up in the root's own
/// `/etc/passwd` and `/etc/group`; default: `0`.
pub const USER: &str = "kiln.user";
/// The user and group of a command that builds something, if nobody says otherwise.
pub const BUILD_USER: &str = "1000:1000";
/// The mounts of the command, as [`encode`] writes them.
pub const MOUNTS: &str = "kiln.mounts";

/// A service that runs beside the command, as [`encode_service`] writes it.
pub const SERVICE: &str = "kiln.service";

/// The names of the hosts that a command can resolve in addition, sorted and separated by commas. The lease has their addresses, which
/// are no part of the action.
pub const HOSTS: &str = "kiln.hosts";

/// A program that runs beside the command, in a root of its own, and ends with it. Both have one loopback, so that the command reaches what the
/// service listens at. What it prints is shown after the command's output if the command fails, or if the service is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Where its root is mounted: the target of a [`Mount::Bind`] that may be written to.
    pub root: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its variables.
    pub env: Vec<(String, String)>,
    /// Who runs it, as [`USER`], looked up in its own root; empty for root.
    pub user: String,
    /// Its directory in its root.
    pub cwd: String,
    /// The port of the loopback at which it listens before the command begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A service as the value of [`SERVICE`]: JSON, the same for equal services.
pub fn encode_service(service: &Service) -> String {
    serde_json::to_string(service).unwrap_or_default()
}

/// Reads the value of [`SERVICE`].
///
/// # Errors
/// Where it is not what [`encode_service`] writes, or could not be started.
pub fn decode_service(text: &str) -> Result<Service, InvalidService> {
    let service: Service = serde_json::from_str(text).map_err(|error| InvalidService(error.to_string()))?;
    let form = encode_service(&service);
    if form != text {
        return Err(InvalidService(format!("expected `{form}`")));
    }
    let is_plain = |path: &str| path.starts_with('/') && path.len() > 1 && path.split('/').all(|part| part != "..");
    if service.argv.first().is_none_or(String::is_empty) || !is_plain(&service.root) || service.port == Some(0) {
        return Err(InvalidService("expected a program, a root that is not `/`, and a port that is not 0".to_owned()));
    }
    Ok(service)
}

/// A value of [`SERVICE`] that is not a service in the form that [`encode_service`] writes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{SERVICE}` is not a service in its one form: {0}")]
pub struct InvalidService(String);

/// The name of the machine that a command sees, as `hostname` has it: at most 64 letters, digits, `-`, `_` and `.`. Default: `kiln`.
pub const HOSTNAME: &str = "kiln.hostname";

/// Whether a text can be the name of the machine.
pub fn is_hostname(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// A value of [`NETWORK`](crate::property::NETWORK): a network of its own with a way out, as for every step with the network. The default.
pub const NETWORK_DEFAULT: &str = "default";
/// A value of [`NETWORK`](crate::property::NETWORK): only its own loopback.
pub const NETWORK_NONE: &str = "none";
/// A value of [`NETWORK`](crate::property::NETWORK): the worker's network. Only workers that allow it offer this value.
pub const NETWORK_HOST: &str = "host";

/// The child of the input tree that is the root.
pub const ROOT_DIRECTORY: &str = "root";
/// The child of the input tree that has an action's own inputs: ordinary files, without owners.
pub const BUILD_DIRECTORY: &str = "build";
/// The child of the input tree that has the content of mounts.
pub const MOUNT_DIRECTORY: &str = "mounts";
/// The output directory that is the layer.
pub const LAYER_OUTPUT: &str = "root";
/// The output file that has the times of the layer's nodes.
pub const TIMES_OUTPUT: &str = "times";

/// A mount of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Mount {
    /// A tree or a file.
    Bind {
        /// Absolute path in the root.
        target: String,
        /// The child of [`MOUNT_DIRECTORY`] that it is.
        source: u32,
        /// Whether the command may write to it. What it writes is thrown away.
        #[serde(default, skip_serializing_if = "is_default")]
        rw: bool,
    },
    /// A directory that outlives the command. Which one is in the lease and not in the action: what a cache has is no part of what a
    /// command does.
    Cache {
        /// Absolute path in the root.
        target: String,
        /// The child of [`MOUNT_DIRECTORY`] that a new cache begins as; default: empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<u32>,
        /// Whether the command may write to it. What it writes is kept if it succeeds.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        rw: bool,
        /// Permission bits of a new one; default: 0755.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Owner of a new one.
        #[serde(default, skip_serializing_if = "is_default")]
        uid: u32,
        /// Group of a new one.
        #[serde(default, skip_serializing_if = "is_default")]
        gid: u32,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Absolute path in the root.
        target: String,
        /// Most bytes; default: half of the command's memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// A secret of the action, as a file in memory, a variable or both.
    Secret {
        /// Absolute path in the root; none: only a variable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// Its id. The secret of the action is named [`secret_name`] of it.
        id: String,
        /// The variable that has its value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        env: Option<String>,
        /// Whether the command is refused without it. Otherwise an absent secret has neither file nor variable.
        #[serde(default, skip_serializing_if = "is_default")]
        required: bool,
        /// Permission bits of the file; default: 0400.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Owner of the file.
        #[serde(default, skip_serializing_if = "is_default")]
        uid: u32,
        /// Group of the file.
        #[serde(default, skip_serializing_if = "is_default")]
        gid: u32,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Absolute path in the root.
        target: String,
        /// Which agent.
        id: String,
        /// Whether the command is refused without it.
        #[serde(default, skip_serializing_if = "is_default")]
        required: bool,
        /// Permission bits of the socket; default: 0600.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Owner of the socket.
        #[serde(default, skip_serializing_if = "is_default")]
        uid: u32,
        /// Group of the socket.
        #[serde(default, skip_serializing_if = "is_default")]
        gid: u32,
    },
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// A value of [`MOUNTS`] that is not a list of mounts in the form that [`encode`] writes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{MOUNTS}` is not a list of mounts in its one form: {0}")]
pub struct InvalidMounts(String);

/// Mounts as the value of [`MOUNTS`]: JSON, the same for equal lists.
pub fn encode(mounts: &[Mount]) -> String {
    serde_json::to_string(mounts).unwrap_or_default()
}

/// Reads the value of [`MOUNTS`].
///
/// # Errors
/// Where it is not what [`encode`] writes: two forms of a list would be two keys.
pub fn decode(text: &str) -> Result<Vec<Mount>, InvalidMounts> {
    let mounts: Vec<Mount> = serde_json::from_str(text).map_err(|error| InvalidMounts(error.to_string()))?;
    let form = encode(&mounts);
    if form == text { Ok(mounts) } else { Err(InvalidMounts(format!("expected `{form}`"))) }
}

/// Most caches of one action.
pub const MAX_CACHES: usize = 64;

/// What entitles a worker to a cache: the beginning of a hash of its name.
pub fn entitlement(name: &crate::v1::CacheName) -> [u8; 16] {
    let name = crate::v1::CacheName { worker: String::new(), ..name.clone() };
    let digest = DigestFunction::Sha256.digest(&name.encode_to_vec());
    let mut entitlement = [0; 16];
    entitlement.copy_from_slice(&digest.hash[..16]);
    entitlement
}

/// The name under which an action has the secret with this id: the id, if it is a name, or else one that no other id gives.
pub fn secret_name(id: &str) -> String {
    if crate::secret::is_name(id) && !id.starts_with("ID_") {
        return id.to_owned();
    }
    id.bytes().fold("ID_".to_owned(), |mut name, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => name.push(byte as char),
            _ => name.push_str(&format!("_{byte:02x}")),
        }
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_have_one_form() {
        let mounts = [
            Mount::Bind { target: "/src".into(), source: 0, rw: false },
            Mount::Cache { target: "/root/.cache".into(), source: None, rw: true, mode: Some(0o700), uid: 0, gid: 0 },
            Mount::Tmpfs { target: "/tmp".into(), size: None },
        ];
        let text = encode(&mounts);
        assert_eq!(
            text,
            r#"[{"type":"bind","target":"/src","source":0},{"type":"cache","target":"/root/.cache","mode":448},{"type":"tmpfs","target":"/tmp"}]"#
        );
        assert_eq!(decode(&text).as_deref(), Ok(&mounts[..]));
        for other in [text.replace(',', ", "), text.replace("\"source\":0", "\"source\":0,\"rw\":false"), "{}".into()] {
            assert!(decode(&other).is_err(), "{other}");
        }
        assert!(decode(r#"[{"type":"tmpfs","target":"/tmp","colour":1}]"#).is_err());
    }

    #[test]
    fn a_service_has_one_form_and_something_to_start() {
        let service = Service {
            root: "/.kiln-gate/root".into(),
            argv: vec!["/shop".into()],
            env: vec![("A".into(), "b".into())],
            user: "app".into(),
            cwd: "/".into(),
            port: Some(8080),
        };
        let text = encode_service(&service);
        assert_eq!(decode_service(&text), Ok(service.clone()));
        assert!(decode_service(&text.replace(':', ": ")).is_err());
        for bad in [
            Service { argv: Vec::new(), ..service.clone() },
            Service { root: "/".into(), ..service.clone() },
            Service { root: "/a/../..".into(), ..service.clone() },
            Service { port: Some(0), ..service },
        ] {
            assert!(decode_service(&encode_service(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_of_secrets_have_names_of_their_own() {
        assert_eq!(secret_name("NPM_TOKEN"), "NPM_TOKEN");
        let ids = ["aws-creds", "aws_creds", "aws.creds", "ID_a", "1a", "a/b", "ID_aws_2dcreds", ""];
        let names: std::collections::BTreeSet<String> = ids.iter().map(|id| secret_name(id)).collect();
        assert_eq!(names.len(), ids.len());
        assert!(names.iter().all(|name| crate::secret::is_name(name)));
    }
}
