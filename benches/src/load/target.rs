//! The target of a measurement: an existing endpoint, or a farm that is started for it.

use kiln_proto::channel::Access;

use super::endpoint::Endpoint;
use crate::farm::{Farm, Setup};
use crate::process::Process;

/// Options for the target.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Any Remote Execution endpoint, such as grpc://HOST:PORT; default: start a farm here.
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// REAPI's instance name.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub instance: String,
    /// A platform property of the actions to execute; repeatable.
    #[arg(long = "platform", value_name = "NAME=VALUE", value_parser = property)]
    pub platform: Vec<(String, String)>,
    /// The target's process on this machine, for its memory and CPU time.
    #[arg(long, value_name = "PID", requires = "target")]
    pub server_pid: Option<u32>,
    /// An additional argument for the coordinator that is started here; repeatable.
    #[arg(long = "coordinator-arg", value_name = "ARG", allow_hyphen_values = true, conflicts_with = "target")]
    pub coordinator_arguments: Vec<String>,
    /// Credentials for the target.
    #[command(flatten)]
    pub access: Access,
}

/// The target of a measurement.
#[derive(Debug)]
pub struct Target {
    /// Its URL.
    pub url: String,
    /// Its process, if known.
    pub server: Option<Process>,
    /// The farm that was started, if any.
    pub farm: Option<Farm>,
    access: Access,
    arguments: Vec<String>,
}

impl Target {
    /// Uses the given target, or starts a farm with this many workers.
    ///
    /// # Errors
    /// If the farm cannot be started, or the given process does not exist.
    pub async fn open(options: &Options, workers: u32) -> anyhow::Result<Self> {
        let arguments = options.coordinator_arguments.clone();
        if let Some(url) = options.target.clone() {
            let server = options.server_pid.map(Process::new).transpose()?;
            return Ok(Self { url, server, farm: None, access: options.access.clone(), arguments });
        }
        let farm = Farm::start(workers, Setup { arguments: arguments.clone(), ..Setup::default() }).await?;
        let server = Some(farm.coordinator()?);
        Ok(Self { url: farm.url.clone(), server, access: farm.access.clone(), farm: Some(farm), arguments })
    }

    /// Connects to it.
    ///
    /// # Errors
    /// If the target does not respond.
    pub async fn connect(&self, options: &Options, connections: usize) -> anyhow::Result<Endpoint> {
        Endpoint::connect(&self.url, &self.access, &options.instance, &options.platform, connections).await
    }

    /// A description for the report.
    pub fn words(&self) -> String {
        match &self.farm {
            None => self.url.clone(),
            Some(_) if self.arguments.is_empty() => "a farm on this machine".to_owned(),
            Some(_) => format!("a farm on this machine, with {}", shown(&self.arguments)),
        }
    }
}

/// The arguments without passwords in URLs.
fn shown(arguments: &[String]) -> String {
    let hidden = arguments.iter().map(|argument| match argument.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://...@{host}"),
            None => argument.clone(),
        },
        None => argument.clone(),
    });
    hidden.collect::<Vec<_>>().join(" ")
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("invalid platform property `{text}`; expected `NAME=VALUE`")),
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn passwords_are_not_in_the_report() {
        let arguments = ["--redis", "redis://me:secret@host:6379", "redis://host"].map(str::to_owned);
        assert_eq!(shown(&arguments), "--redis redis://...@host:6379 redis://host");
    }
}
