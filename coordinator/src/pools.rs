//! Declared worker pools: `--pool linux/arm64,cpus=16,memory=64GiB,label.disk=ssd`.

use kiln_planner::plan::Platform;
use kiln_proto::property;
use kiln_scheduler::{Capacity, Pool};

/// Parses a pool: a platform, then properties of its workers.
///
/// # Errors
/// What was expected.
pub fn pool(text: &str) -> Result<Pool, String> {
    let (platform, facts) = text.split_once(',').unwrap_or((text, ""));
    let platform: Platform = platform.trim().parse::<Platform>().map_err(|error| format!("`{text}`: {error}"))?;
    let mut pool = Pool {
        name: text.to_owned(),
        properties: [
            (property::OS_FAMILY.to_owned(), "linux".to_owned()),
            (property::ISA.to_owned(), platform.isa().to_owned()),
        ]
        .into(),
        capacity: None,
    };
    let mut capacity = Capacity { milli_cpus: u32::MAX, memory_bytes: u64::MAX };
    for fact in facts.split(',').map(str::trim).filter(|fact| !fact.is_empty()) {
        let wrong = || {
            format!(
                "invalid pool property `{fact}`; expected `cpus=N`, `memory=SIZE`, `os=ID:VERSION`, `label.NAME=VALUE` or \
                 `emulated=on`"
            )
        };
        let (name, value) = fact.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(wrong)?;
        let mut offer = |name: &str| pool.properties.insert((name.to_owned(), value.to_owned()));
        match name {
            "cpus" => {
                let cpus = value.parse::<f64>().ok().filter(|cpus| *cpus > 0.0 && *cpus <= 4096.0).ok_or_else(wrong)?;
                capacity.milli_cpus = (cpus * 1000.0) as u32;
            }
            "memory" => capacity.memory_bytes = kiln_units::size(value).map_err(|error| error.to_string())?,
            "os" => {
                offer(property::OS);
            }
            "emulated" => {
                offer(property::EMULATED);
            }
            label => match label.strip_prefix("label.").filter(|label| !label.is_empty()) {
                Some(label) => {
                    offer(&format!("{}{label}", property::LABEL_PREFIX));
                }
                None => return Err(wrong()),
            },
        }
    }
    pool.capacity = Some(capacity);
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_a_platform_and_what_is_known_of_it() {
        let read = pool("linux/arm64,cpus=16,memory=64GiB,label.disk=ssd").unwrap();
        assert_eq!(read.capacity, Some(Capacity { milli_cpus: 16_000, memory_bytes: 64 << 30 }));
        for pair in [("ISA", "arm-a64"), ("OSFamily", "linux"), ("kiln.label.disk", "ssd")] {
            assert!(read.properties.contains(&(pair.0.to_owned(), pair.1.to_owned())), "expected {pair:?} in {read:?}");
        }
        assert!(pool("linux/amd64").is_ok());
        for bad in ["", "plan9/amd64", "linux/amd64,cpus=0", "linux/amd64,disk=ssd", "linux/amd64,label.=x"] {
            assert!(pool(bad).is_err(), "expected `{bad}` to be refused");
        }
    }
}
