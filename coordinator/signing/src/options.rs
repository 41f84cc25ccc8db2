//! Options of what a farm signs with.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::Error;
use crate::command::Command;

/// What a farm signs its statements about artifacts with.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Options {
    /// The farm's signing keys, PEM with PKCS#8 (ECDSA with P-256, or Ed25519); created if missing. The first that is valid signs, and all are
    /// published. Default: `signing.key` in the farm's directory if it is there, otherwise in the data directory. Coordinators of one farm
    /// must share it. Reloaded when it changes (`kiln farm rotate-signing-key`).
    #[arg(long, env = "KILN_SIGNING_KEY", value_name = "FILE", conflicts_with = "signing_command")]
    pub signing_key: Option<PathBuf>,
    /// Sign with this shell command instead, such as a client of a key management service: it gets the message on its standard input and
    /// prints the signature, raw or in base64.
    #[arg(long, env = "KILN_SIGNING_COMMAND", value_name = "COMMAND", requires = "signing_public_key")]
    pub signing_command: Option<String>,
    /// The public keys of that command, in PEM: the one that signs first, then those that were in use before.
    #[arg(long, env = "KILN_SIGNING_PUBLIC_KEY", value_name = "FILE", requires = "signing_command")]
    pub signing_public_key: Option<PathBuf>,
    /// How long that command may take, such as `30s`.
    #[arg(long, env = "KILN_SIGNING_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = kiln_units::duration)]
    pub signing_timeout: Duration,
    /// The farm's identity in provenance (`builder.id`), such as `https://farm.example`. Default: `urn:kiln:farm:` and the id of the farm's first
    /// signing key.
    #[arg(long, env = "KILN_FARM_URL", value_name = "URL")]
    pub farm_url: Option<Url>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            signing_key: None,
            signing_command: None,
            signing_public_key: None,
            signing_timeout: Duration::from_secs(30),
            farm_url: None,
        }
    }
}

impl Options {
    /// Whether they name where the keys are.
    pub fn are_given(&self) -> bool {
        self.signing_key.is_some() || self.signing_command.is_some()
    }

    /// The command, if one signs, and the file with its public keys.
    pub(crate) fn command(&self) -> Result<Option<(Command, PathBuf)>, Error> {
        match (&self.signing_command, &self.signing_public_key) {
            (Some(command), Some(path)) => {
                Ok(Some((Command::new(command.clone(), self.signing_timeout), path.clone())))
            }
            (Some(_), None) => Err(Error::Pair { given: "--signing-command", missing: "--signing-public-key" }),
            (None, Some(_)) => Err(Error::Pair { given: "--signing-public-key", missing: "--signing-command" }),
            (None, None) => Ok(None),
        }
    }
}
