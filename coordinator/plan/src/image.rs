//! Description of an image artifact: everything besides its files, and where files go in the image.

use std::collections::BTreeMap;

/// The name of an empty base.
pub const SCRATCH: &str = "scratch";

/// A container image's description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// The image that it is built on.
    pub base: Base,
    /// Packages that it gets on top of its base, by the base's own package manager.
    pub packages: Vec<String>,
    /// The command, with `cmd` as its arguments; `None` for the base's.
    pub entrypoint: Option<Vec<String>>,
    /// Whether the command is the program that is found in its files, where neither `entrypoint` nor `cmd` is set.
    pub start: bool,
    /// Globs of paths, relative to the working directory, whose files are in layers of their own below the others: what changes least.
    pub layers: Vec<String>,
    /// Arguments, which are replaced by those given at start; `None` for the base's.
    pub cmd: Option<Vec<String>>,
    /// Environment variables, in addition to the base's.
    pub env: BTreeMap<String, String>,
    /// User and optionally group that it runs as.
    pub user: Option<String>,
    /// The working directory, and the parent of relative paths in the image. Absolute.
    pub workdir: Option<String>,
    /// Labels, in addition to the base's.
    pub labels: BTreeMap<String, String>,
    /// Ports that it listens on, such as `8080/tcp`.
    pub ports: Vec<String>,
    /// User and group id of its files' owner.
    pub owner: (u32, u32),
    /// How its layers are compressed.
    pub compression: Compression,
}

/// What an image is built on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Base {
    /// Nothing.
    #[default]
    Scratch,
    /// A reference to an image in a registry.
    Reference(String),
    /// An OCI layout or the output of `docker save`, by its path in the outputs of the artifact's steps or else in the sources.
    Path(String),
}

/// Compression of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Supported by every runtime.
    #[default]
    Gzip,
    /// Faster; Docker supports it since version 23.
    Zstd,
}

impl Base {
    /// Parses the value from `kiln.toml`: `scratch`, `./path`, or a reference.
    pub fn read(text: &str) -> Self {
        match text.strip_prefix("./") {
            _ if text == SCRATCH => Self::Scratch,
            Some(path) => Self::Path(path.trim_end_matches('/').to_owned()),
            None => Self::Reference(text.to_owned()),
        }
    }

    /// The value as written in `kiln.toml`.
    pub fn show(&self) -> String {
        match self {
            Self::Scratch => SCRATCH.to_owned(),
            Self::Reference(reference) => reference.clone(),
            Self::Path(path) => format!("./{path}"),
        }
    }
}

impl Image {
    /// A file's path relative to the image's root: `/usr/bin/shop` is absolute, `shop` is relative to the working directory.
    pub fn place(&self, path: &str) -> String {
        match path.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => match self.workdir.as_deref().unwrap_or("/").trim_matches('/') {
                "" => path.to_owned(),
                workdir => format!("{workdir}/{path}"),
            },
        }
    }
}

/// Parses a port, with TCP as the default protocol: `8080` is `8080/tcp`.
pub fn read_port(text: &str) -> Option<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port: u16 = number.parse().ok().filter(|port| *port > 0)?;
    matches!(protocol, "tcp" | "udp" | "sctp").then(|| format!("{port}/{protocol}"))
}

/// Parses `1000:1000`; a single number is both user and group.
pub fn read_owner(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    Some((user.parse().ok()?, group.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_places_are_in_the_working_directory() {
        let image = Image { workdir: Some("/srv/app".into()), ..Image::default() };
        assert_eq!(image.place("main.py"), "srv/app/main.py");
        assert_eq!(image.place("/usr/bin/shop"), "usr/bin/shop");
        assert_eq!(Image::default().place("shop"), "shop");
    }

    #[test]
    fn ports_owners_and_bases_read_as_people_write_them() {
        assert_eq!(read_port("8080"), Some("8080/tcp".into()));
        assert_eq!(read_port("53/udp"), Some("53/udp".into()));
        for bad in ["", "0", "70000", "80/http", "http"] {
            assert_eq!(read_port(bad), None, "{bad}");
        }
        assert_eq!(read_owner("1000"), Some((1000, 1000)));
        assert_eq!(read_owner("1:2"), Some((1, 2)));
        assert_eq!(read_owner("www-data"), None);
        for text in ["scratch", "./base.tar", "debian:12"] {
            assert_eq!(Base::read(text).show(), text);
        }
    }
}
