//! `kiln cache env`: the settings with which a tool uses the farm's cache, as shell commands.
//!
//! Invariant: what is printed names the place of a token and not the token, unless that was asked for.

mod shell;
mod tools;

use std::path::PathBuf;

use clap::ValueEnum;
use kiln_proto::channel::{Access, TokenPlace};
use kiln_proto::v1::FarmStatus;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::Error;

/// A build tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Tool {
    Bazel,
    Ccache,
    Go,
    Gradle,
    Nx,
    Sccache,
    Turbo,
}

/// How settings are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Commands for a POSIX shell.
    #[default]
    Shell,
    /// A file of the tool: Gradle's init script.
    File,
}

/// `kiln cache env`.
#[derive(Debug, Clone, clap::Args)]
pub struct Env {
    /// The tool.
    pub tool: Tool,
    /// Use this branch scope: reads what is in it and then what everyone shares, and writes into it only.
    #[arg(long, value_name = "NAME")]
    pub scope: Option<String>,
    /// Print commands for a shell (`eval "$(kiln cache env TOOL)"`), or a file that the tool reads (`gradle` only).
    #[arg(long, default_value = "shell", value_name = "FORMAT")]
    pub format: Format,
    /// Print the token itself. By default the shell takes it from where `kiln` finds it, each time.
    #[arg(long)]
    pub show_token: bool,
}

/// What a tool needs to know.
#[derive(Debug, Clone)]
struct Settings {
    /// The tool's address, without a slash at its end.
    url: String,
    /// All of its addresses, if several coordinators serve it, for helpers that turn to the next when one is gone.
    urls: String,
    token: Option<Token>,
    /// Whether the caller may write; if not, a tool is told not to try where it can be.
    writes: bool,
    /// The authority of the farm's certificate.
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone)]
enum Token {
    Shown(String),
    At(TokenPlace),
}

/// The characters of a scope that stay as they are in a URL.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Tool {
    /// Its name, in the farm's addresses too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bazel => "bazel",
            Self::Ccache => "ccache",
            Self::Go => "go",
            Self::Gradle => "gradle",
            Self::Nx => "nx",
            Self::Sccache => "sccache",
            Self::Turbo => "turbo",
        }
    }
}

/// The root of a farm's caches.
fn root(farm: &str, status: &FarmStatus) -> Result<Url, Error> {
    let unknown = || Error::Address { farm: farm.to_owned() };
    if status.cache_port == 0 {
        return Err(Error::NotServed { farm: farm.to_owned() });
    }
    if !status.cache_url.is_empty() {
        return Url::parse(&status.cache_url).map_err(|_| unknown());
    }
    let normal = match farm.split_once("://") {
        Some(("grpc", rest)) => format!("http://{rest}"),
        Some(("grpcs", rest)) => format!("https://{rest}"),
        Some(("http" | "https", _)) => farm.to_owned(),
        Some(_) => return Err(unknown()),
        None => format!("http://{farm}"),
    };
    let mut url = Url::parse(&normal).map_err(|_| unknown())?;
    let port = u16::try_from(status.cache_port).map_err(|_| unknown())?;
    url.set_port(Some(port)).map_err(|()| unknown())?;
    url.set_path("");
    Ok(url)
}

/// The settings of a tool for a farm that has this status. Of a farm with several coordinators, `farms` has the addresses, first the
/// one that is used; all of them serve caches at the same port.
///
/// # Errors
/// If the farm serves no caches, the token cannot be read, or the tool cannot use them.
pub fn settings(env: &Env, farms: &[String], access: &Access, status: &FarmStatus) -> Result<String, Error> {
    let farm = farms.first().map_or("", String::as_str);
    let scope = env.scope.as_deref().map(|scope| format!("/scope/{}", utf8_percent_encode(scope, PLAIN)));
    let token = match access.token_place(farm) {
        Some(place) if env.show_token => Some(Token::Shown(place.read()?)),
        Some(place) => Some(Token::At(place)),
        None => None,
    };
    let scope = scope.unwrap_or_default();
    let url = |farm: &String| -> Result<String, Error> {
        let root = root(farm, status)?;
        Ok(format!("{}/cache{scope}/{}", root.as_str().trim_end_matches('/'), env.tool.name()))
    };
    let mut urls: Vec<String> = Vec::new();
    for url in farms.iter().map(url) {
        // One address of the caches may stand for all coordinators.
        let url = url?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    let settings = Settings {
        url: urls.first().cloned().unwrap_or_default(),
        urls: urls.join(","),
        token,
        writes: if env.scope.is_some() { status.cache_writes_scopes } else { status.cache_writes },
        ca: access.ca.clone(),
        certificate: access.cert.clone().zip(access.key.clone()),
    };
    match env.format {
        Format::Shell => tools::shell(env.tool, &settings),
        Format::File => tools::file(env.tool, &settings),
    }
}

#[cfg(test)]
mod tests;
