//! Turns an action's platform properties into what the scheduler matches and reserves.

use std::collections::BTreeSet;

use kiln_images::name::ImageName;
use kiln_images::reference::Invalid;
use kiln_proto::{property, reapi, root};
use kiln_scheduler::{Capacity, Requirements};

use super::properties::{Meaning, Rules};

/// Reserved for an action that does not specify it: one CPU.
const DEFAULT_MILLI_CPUS: u32 = 1000;
/// Reserved for an action that does not specify it: 256 MiB.
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;

/// Why a platform property cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Error {
    #[error(
        "unknown platform property `{name}`; expected `OSFamily`, `ISA`, `container-image`, `kiln.os`, \
         `kiln.libc`, `kiln.cpu-level`, `kiln.cpu`, `kiln.environment`, `kiln.emulated`, `kiln.cpus`, `kiln.memory`, `kiln.network`, \
         `kiln.executor`, `kiln.root`, `kiln.user`, `kiln.mounts`, `kiln.secret.NAME` or `kiln.label.NAME`, or a rule for it (`kiln-coordinator --properties FILE`)"
    )]
    Unknown { name: String },
    #[error("platform property `container-image`: {reason}")]
    Image { reason: String },
    #[error("platform property {reason}")]
    Mounts { reason: String },
    #[error("platform property `{name}` is `{value}`; expected {expected}")]
    Value { name: String, value: String, expected: &'static str },
}

/// What an action requires.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// What its worker must offer and reserve.
    pub requirements: Requirements,
    /// Whether it may reach the network.
    pub network: bool,
    /// Names of the secrets that must be provided.
    pub secrets: BTreeSet<String>,
    /// The SSH agents that it mounts.
    pub agents: BTreeSet<String>,
    /// The properties as translated by the farm's rules.
    pub platform: reapi::Platform,
    /// Whether the capacity was meant for another farm's machines, so that less may be enough.
    pub is_estimate: bool,
    /// Notes on properties that were translated or ignored.
    pub notes: Vec<String>,
}

/// Reads the platform of an action: the action's own, or else its command's.
pub fn asked(action: &reapi::Action, command: &reapi::Command, rules: &Rules) -> Result<Asked, Error> {
    #[allow(deprecated)]
    let platform = action.platform.as_ref().or(command.platform.as_ref());
    let mut properties = BTreeSet::new();
    let mut capacity = Capacity { milli_cpus: DEFAULT_MILLI_CPUS, memory_bytes: DEFAULT_MEMORY_BYTES };
    let (mut network, mut secrets, mut agents) = (false, BTreeSet::new(), BTreeSet::new());
    let (mut notes, mut is_estimate, mut effective) = (Vec::new(), false, Vec::new());
    for given in platform.iter().flat_map(|platform| &platform.properties) {
        let (name, value) = match rules.meaning(&given.name, &given.value) {
            Meaning::Is(name, value) => {
                if name != given.name {
                    notes.push(format!("{}={} was translated to {name}={value}", given.name, given.value));
                }
                (name, value)
            }
            Meaning::Estimate(name, value) => {
                is_estimate = true;
                notes.push(format!("{}={} was translated to {name}={value}, or less", given.name, given.value));
                (name, value)
            }
            Meaning::Ignored => {
                notes.push(format!("{}={} is ignored", given.name, given.value));
                continue;
            }
        };
        effective.push(reapi::platform::Property { name: name.clone(), value: value.clone() });
        let wrong = |expected| Error::Value { name: name.clone(), value: value.clone(), expected };
        match name.as_str() {
            property::CPUS => {
                let cpus: f64 = value.parse().map_err(|_| wrong("a number of CPUs such as `2` or `0.5`"))?;
                if !(cpus > 0.0 && cpus <= 4096.0) {
                    return Err(wrong("a number of CPUs above 0 and at most 4096"));
                }
                capacity.milli_cpus = (cpus * 1000.0).ceil() as u32;
            }
            property::OS_FAMILY if value != "linux" => return Err(wrong("`linux`, which all workers run")),
            property::MEMORY => {
                capacity.memory_bytes = value.parse().map_err(|_| wrong("a number of bytes"))?;
            }
            property::NETWORK => {
                network = match value.as_str() {
                    "on" | root::NETWORK_DEFAULT => true,
                    "off" | root::NETWORK_NONE => false,
                    root::NETWORK_HOST => {
                        properties.insert((name.clone(), value.clone()));
                        true
                    }
                    _ => return Err(wrong("`on` or `off`, or for an action in a root `default`, `none` or `host`")),
                };
            }
            root::ROOT => {
                if value != root::ROOT_DIRECTORY {
                    return Err(wrong("`root`"));
                }
                properties.insert((property::EXECUTOR.to_owned(), property::IN_ROOT.to_owned()));
            }
            root::MOUNTS => {
                let decoded = root::decode(&value);
                let mounts = decoded.map_err(|error| Error::Mounts { reason: error.to_string() })?;
                agents.extend(mounts.into_iter().filter_map(|mount| match mount {
                    root::Mount::Ssh { id, .. } => Some(id),
                    _ => None,
                }));
                // Who can mount what a root has can mount it elsewhere too.
                properties.insert((property::EXECUTOR.to_owned(), property::IN_ROOT.to_owned()));
            }
            root::USER | root::HOSTS => {}
            root::HOSTNAME if !root::is_hostname(&value) => {
                return Err(wrong("at most 64 letters, digits, `-`, `_` and `.`"));
            }
            root::HOSTNAME => {}
            root::SERVICE => {
                root::decode_service(&value).map_err(|error| Error::Mounts { reason: error.to_string() })?;
            }
            // Any worker with Docker can run any image: it pulls missing ones.
            property::CONTAINER_IMAGE => {
                let _: ImageName =
                    value.parse().map_err(|error: Invalid| Error::Image { reason: error.to_string() })?;
                properties.insert((property::EXECUTOR.to_owned(), property::DOCKER.to_owned()));
            }
            name if name.starts_with(property::SECRET_PREFIX) => {
                let secret = &name[property::SECRET_PREFIX.len()..];
                if !kiln_proto::secret::is_name(secret) {
                    return Err(Error::Unknown { name: name.to_owned() });
                }
                let is_key = value.len() == 64 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                if value != "on" && !is_key {
                    return Err(wrong("`on`, or what stands for the value in the key"));
                }
                secrets.insert(secret.to_owned());
            }
            name if property::is_known(name) => {
                properties.insert((name.to_owned(), value.clone()));
            }
            _ => return Err(Error::Unknown { name: name.clone() }),
        }
    }
    let platform = reapi::Platform { properties: effective };
    let requirements = Requirements { properties, capacity, ..Requirements::default() };
    Ok(Asked { requirements, network, secrets, agents, platform, is_estimate, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(pairs: &[(&str, &str)]) -> reapi::Action {
        let properties = pairs
            .iter()
            .map(|(name, value)| reapi::platform::Property { name: (*name).into(), value: (*value).into() })
            .collect();
        reapi::Action { platform: Some(reapi::Platform { properties }), ..Default::default() }
    }

    #[test]
    fn the_actions_platform_comes_before_the_commands() {
        #[allow(deprecated)]
        let command = reapi::Command { platform: action(&[("ISA", "arm-a64")]).platform, ..Default::default() };
        let own = asked(&action(&[("ISA", "x86-64")]), &command, &Rules::default()).unwrap();
        assert!(own.requirements.properties.contains(&("ISA".into(), "x86-64".into())));
        let inherited = asked(&reapi::Action::default(), &command, &Rules::default()).unwrap();
        assert!(inherited.requirements.properties.contains(&("ISA".into(), "arm-a64".into())));
    }

    #[test]
    fn an_unknown_property_and_a_bad_value_are_refused_by_name() {
        let unknown = asked(&action(&[("gpu", "1")]), &reapi::Command::default(), &Rules::default()).unwrap_err();
        assert!(unknown.to_string().contains("`gpu`"), "{unknown}");
        for cpus in ["0", "-1", "many", "nan", "inf"] {
            let bad =
                asked(&action(&[("kiln.cpus", cpus)]), &reapi::Command::default(), &Rules::default()).unwrap_err();
            assert!(bad.to_string().contains(cpus), "{bad}");
        }
    }

    #[test]
    fn an_image_asks_for_docker_in_either_form_and_a_bad_one_is_refused_by_name() {
        for image in ["docker://debian:12", "debian:12", "docker-daemon:shop:1"] {
            let asked =
                asked(&action(&[("container-image", image)]), &reapi::Command::default(), &Rules::default()).unwrap();
            assert_eq!(asked.requirements.properties, [("kiln.executor".into(), "docker".into())].into());
        }
        let bad =
            asked(&action(&[("container-image", "docker://De bian")]), &reapi::Command::default(), &Rules::default())
                .unwrap_err();
        assert!(bad.to_string().contains("`docker://De bian`"), "{bad}");
    }

    #[test]
    fn repeated_values_all_hold() {
        let asked =
            asked(&action(&[("ISA", "x86-64"), ("ISA", "arm-a64")]), &reapi::Command::default(), &Rules::default())
                .unwrap();
        assert_eq!(asked.requirements.properties.len(), 2);
    }

    #[test]
    fn resources_are_reserved_and_not_matched() {
        let pairs = [("kiln.cpus", "0.5"), ("kiln.memory", "1048576"), ("kiln.network", "on")];
        let asked = asked(&action(&pairs), &reapi::Command::default(), &Rules::default()).unwrap();
        assert_eq!(asked.requirements.capacity, Capacity { milli_cpus: 500, memory_bytes: 1 << 20 });
        assert!(asked.network && asked.requirements.properties.is_empty());
    }

    #[test]
    fn a_root_needs_a_worker_for_roots_and_its_network_may_be_the_hosts() {
        let root = |pairs: &[(&str, &str)]| {
            let all = [&[("kiln.root", "root"), ("kiln.user", "app")], pairs].concat();
            asked(&action(&all), &reapi::Command::default(), &Rules::default())
        };
        let executor = ("kiln.executor".to_owned(), "root".to_owned());
        let plain = root(&[("kiln.network", "none"), ("kiln.mounts", "[]")]).unwrap();
        assert_eq!((plain.requirements.properties, plain.network), ([executor.clone()].into(), false));
        assert!(root(&[("kiln.network", "default")]).unwrap().network);
        let host = root(&[("kiln.network", "host")]).unwrap();
        let wanted = [executor, ("kiln.network".into(), "host".into())].into();
        assert_eq!((host.requirements.properties, host.network), (wanted, true));
        assert!(root(&[("kiln.mounts", "[{}]")]).unwrap_err().to_string().contains("kiln.mounts"));
        let elsewhere = asked(&action(&[("kiln.root", "other")]), &reapi::Command::default(), &Rules::default());
        assert!(elsewhere.unwrap_err().to_string().contains("`other`"));
    }

    #[test]
    fn secrets_are_named_and_no_worker_must_offer_them() {
        let named =
            asked(&action(&[("kiln.secret.NPM_TOKEN", "on")]), &reapi::Command::default(), &Rules::default()).unwrap();
        assert!(named.secrets.contains("NPM_TOKEN") && named.requirements.properties.is_empty());
        for (name, value) in [("kiln.secret.", "on"), ("kiln.secret.A-B", "on"), ("kiln.secret.A", "hunter22")] {
            assert!(
                asked(&action(&[(name, value)]), &reapi::Command::default(), &Rules::default()).is_err(),
                "{name}={value}"
            );
        }
    }
    #[test]
    fn properties_of_other_farms_are_taken_with_a_note_and_another_system_is_refused() {
        let foreign = [("OSFamily", "Linux"), ("Arch", "amd64"), ("Pool", "default"), ("cpu_count", "64")];
        let asked = asked(&action(&foreign), &reapi::Command::default(), &Rules::default()).unwrap();
        let pairs: BTreeSet<(String, String)> =
            [("OSFamily".into(), "linux".into()), ("ISA".into(), "x86-64".into())].into();
        assert_eq!((asked.requirements.properties, asked.is_estimate), (pairs, true));
        assert_eq!(asked.requirements.capacity.milli_cpus, 64_000);
        let notes = ["Arch=amd64 was translated to ISA=x86-64", "Pool=default is ignored"];
        assert!(notes.iter().all(|note| asked.notes.iter().any(|own| own == note)), "{:?}", asked.notes);
        let windows = super::asked(&action(&[("OSFamily", "windows")]), &reapi::Command::default(), &Rules::default());
        assert!(windows.unwrap_err().to_string().contains("`windows`"));
    }
}
