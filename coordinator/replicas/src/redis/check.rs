//! Whether a Redis can keep a journal. Managed services forbid `CONFIG`, so whatever `INFO` has is read from there.

use kiln_redis::{CALL, Wire};
use redis::Value;

use super::answers;
use crate::error::Error;

/// The oldest version: before it, scripts could write to a master that has lost its replicas.
const OLDEST: (u32, u32) = (7, 0);
/// Since when a writer can wait for the disk.
const WAITS_FOR_DISK: (u32, u32) = (7, 2);

/// What a Redis says of itself.
#[derive(Debug, Default)]
struct Facts {
    info: String,
    appendfsync: Option<String>,
    min_replicas: Option<String>,
}

impl Facts {
    fn get(&self, name: &str) -> &str {
        let line = self.info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    }

    /// Valkey says which Redis it is like, and its own version beside.
    fn version(&self) -> (u32, u32) {
        let text = [self.get("valkey_version"), self.get("redis_version")].into_iter().find(|text| !text.is_empty());
        let mut numbers = text.unwrap_or_default().split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// Settings with which the journal would not last are errors; others are warnings.
pub(super) async fn check(wire: &Wire) -> Result<Vec<String>, Error> {
    judge(wire.shown(), &facts(wire).await?)
}

async fn facts(wire: &Wire) -> Result<Facts, Error> {
    let info = |section: &str| redis::cmd("INFO").arg(section).to_owned();
    let config = |name: &str| redis::cmd("CONFIG").arg("GET").arg(name).to_owned();
    let sections = ["server", "memory", "persistence", "replication"].map(info);
    let configs = ["appendfsync", "min-replicas-to-write"].map(config);
    let mut answers = wire.calls(sections.into_iter().chain(configs).collect(), CALL).await?.into_iter();
    let mut facts = Facts::default();
    for answer in answers.by_ref().take(4) {
        let value = answer.map_err(|error| kiln_redis::failure(wire.shown(), &error))?;
        facts.info.push_str(&answers::read::<String>(wire.shown(), value)?);
        facts.info.push('\n');
    }
    let mut setting = || {
        let found: Vec<String> = answers::read("", answers.next()?.unwrap_or(Value::Nil)).ok()?;
        found.into_iter().nth(1)
    };
    (facts.appendfsync, facts.min_replicas) = (setting(), setting());
    Ok(facts)
}

fn judge(shown: &str, facts: &Facts) -> Result<Vec<String>, Error> {
    let wrong = |found: String, fix: &str| Error::Settings { shown: shown.to_owned(), found, fix: fix.to_owned() };
    let version = facts.version();
    if version < OLDEST {
        let found = format!("its version is {}.{}", version.0, version.1);
        return Err(wrong(found, "use Redis 7.0 or later, better 7.2 or later, or Valkey"));
    }
    if facts.get("role") != "master" {
        let fix = "use the master's address, or the addresses of Sentinels, which know it: `redis+sentinel://HOST:PORT/MASTER`";
        return Err(wrong("it is a replica and takes no writes".to_owned(), fix));
    }
    let policy = facts.get("maxmemory_policy");
    if policy.starts_with("allkeys-") {
        let found = format!("it has `maxmemory-policy {policy}`, so it may drop parts of the journal");
        let fix = "set `maxmemory-policy` to `noeviction`, or to `volatile-lru` if the same Redis is the farm's cache";
        return Err(wrong(found, fix));
    }
    if facts.get("aof_enabled") != "1" {
        let found = "it has `appendonly no`, so a restart would lose builds".to_owned();
        return Err(wrong(found, "run `CONFIG SET appendonly yes`, and set it in its configuration"));
    }
    let mut warnings = Vec::new();
    let mut warn = |found: &str, fix: &str| warnings.push(format!("Redis at `{shown}` {found}; {fix}"));
    match facts.appendfsync.as_deref() {
        Some("no") => {
            warn("has `appendfsync no`: a crash may lose builds", "set `appendfsync` to `everysec` or `always`")
        }
        Some("everysec") if version < WAITS_FOR_DISK => warn(
            "is older than 7.2 and has `appendfsync everysec`: a crash may lose the last two seconds, submitted builds included",
            "use Redis 7.2 or later or Valkey, or set `appendfsync` to `always`",
        ),
        _ => {}
    }
    let replicas: u32 = facts.get("connected_slaves").parse().unwrap_or(0);
    if replicas > 0 && facts.min_replicas.as_deref() == Some("0") {
        warn(
            "has replicas and `min-replicas-to-write 0`: a master that is cut off from them goes on taking what a failover loses",
            "set `min-replicas-to-write` to 1",
        );
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: &str, role: &str, policy: &str, aof: &str) -> Facts {
        let info = format!(
            "# Server\r\nredis_version:{version}\r\nrole:{role}\r\nmaxmemory_policy:{policy}\r\naof_enabled:{aof}\r\nconnected_slaves:0\r\n"
        );
        Facts { info, ..Facts::default() }
    }

    #[test]
    fn settings_that_lose_a_journal_are_refused_with_their_fix() {
        let fix = |facts: Facts| judge("redis://h", &facts).unwrap_err().to_string();
        assert!(fix(facts("6.2.14", "master", "noeviction", "1")).contains("7.0 or later"));
        assert!(fix(facts("7.2.4", "slave", "noeviction", "1")).contains("redis+sentinel://"));
        assert!(fix(facts("7.2.4", "master", "allkeys-lru", "1")).contains("`noeviction`"));
        assert!(fix(facts("7.2.4", "master", "noeviction", "0")).contains("CONFIG SET appendonly yes"));
        for policy in ["noeviction", "volatile-lru"] {
            assert!(judge("", &facts("10.0.1", "master", policy, "1")).unwrap().is_empty(), "`{policy}` is well");
        }
    }

    #[test]
    fn what_a_crash_or_failover_may_lose_is_a_warning() {
        let fsync = |version, fsync: &str| {
            let facts = Facts { appendfsync: Some(fsync.into()), ..facts(version, "master", "noeviction", "1") };
            judge("", &facts).unwrap().len()
        };
        assert_eq!([fsync("7.0.1", "everysec"), fsync("7.2.0", "everysec"), fsync("8.0.0", "no")], [1, 0, 1]);
        let mut facts = facts("7.2.0", "master", "noeviction", "1");
        facts.info = facts.info.replace("connected_slaves:0", "connected_slaves:2");
        facts.min_replicas = Some("0".into());
        assert!(judge("", &facts).unwrap()[0].contains("`min-replicas-to-write` to 1"));
        facts.info.push_str("valkey_version:8.1.0\r\n");
        assert_eq!(facts.version(), (8, 1));
    }
}
