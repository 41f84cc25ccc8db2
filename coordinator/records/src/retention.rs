//! How long builds are kept.

use std::str::FromStr;
use std::time::Duration;

use kiln_journal::{Batch, Durability, Range};
use kiln_proto::clock;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{Build, Status};
use prost::Message;

use super::{BUILDS, Error, REQUEST_IDS, REQUESTS, Records, SHELLS, index, stream};

/// Records that are read at a time.
const PAGE: usize = 64;

/// Which builds of a tenant are kept, with their events. Running builds are always kept; artifacts are kept
/// independently of their builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// This many of the latest; all if `None`.
    pub builds: Option<u64>,
    /// Those that ended at most this long ago; all if `None`.
    pub age: Option<Duration>,
}

impl Default for Keep {
    /// The latest 1000.
    fn default() -> Self {
        Self { builds: Some(1_000), age: None }
    }
}

/// Invalid text for which builds to keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid bound `{0}`: expected a number of builds, an age, or both, such as `1000`, `30d` or `1000,30d`")]
pub struct InvalidKeep(String);

impl FromStr for Keep {
    type Err = InvalidKeep;

    fn from_str(text: &str) -> Result<Self, InvalidKeep> {
        let invalid = || InvalidKeep(text.to_owned());
        let mut keep = Self { builds: None, age: None };
        for part in text.split(',').map(str::trim) {
            let twice = match part.parse::<u64>() {
                Ok(0) => return Err(invalid()),
                Ok(builds) => keep.builds.replace(builds).is_some(),
                Err(_) => {
                    let age = kiln_units::duration(part).ok().filter(|age| !age.is_zero()).ok_or_else(invalid)?;
                    keep.age.replace(age).is_some()
                }
            };
            if twice {
                return Err(invalid());
            }
        }
        Ok(keep)
    }
}

impl Keep {
    /// Whether the build ended too long ago to be kept.
    fn is_too_old(&self, build: &Build) -> bool {
        let ended = build.finished.as_ref().or(build.started.as_ref());
        self.age.is_some_and(|age| is_past(ended, age))
    }

    /// Whether a build that started after this one may be too old.
    fn may_later_be(&self, build: &Build) -> bool {
        self.age.is_some_and(|age| is_past(build.started.as_ref(), age))
    }
}

fn is_past(at: Option<&Timestamp>, age: Duration) -> bool {
    u128::from(clock::milliseconds_between(at, Some(&clock::now()))) > age.as_millis()
}

impl Records {
    /// Deletes the builds that are not to be kept, with their events. Returns how many. Running builds stay.
    pub async fn trim(&self, keep: &Keep) -> Result<u64, Error> {
        let total = self.journal.count(BUILDS).await?;
        let mut beyond = keep.builds.map_or(0, |most| total.saturating_sub(most));
        let (mut removed, mut after) = (0, None);
        loop {
            let range = Range { after: after.take(), ..Range::first(PAGE) };
            let page = self.journal.list(BUILDS, range).await?;
            let mut batch = Batch::default();
            for (id, data) in &page {
                let build = Build::decode(data.clone())?;
                let is_last = beyond == 0 && !keep.may_later_be(&build);
                if build.status() != Status::Running && (beyond > 0 || keep.is_too_old(&build)) {
                    batch = index::remove(self.forget(batch, id).await?, &build);
                    removed += 1;
                }
                beyond = beyond.saturating_sub(1);
                if is_last {
                    self.journal.commit(batch, Durability::Relaxed).await?;
                    return Ok(removed);
                }
            }
            if !batch.is_empty() {
                self.journal.commit(batch, Durability::Relaxed).await?;
            }
            match page.last() {
                Some((id, _)) if page.len() == PAGE => after = Some(id.clone()),
                _ => return Ok(removed),
            }
        }
    }

    async fn forget(&self, mut batch: Batch, id: &str) -> Result<Batch, Error> {
        if let Some(request) = self.journal.get(REQUEST_IDS, id).await? {
            batch = batch.remove(REQUEST_IDS, id).remove(REQUESTS, String::from_utf8_lossy(&request));
        }
        batch = self.forget_notifications(batch, id).await?;
        Ok(batch.remove(BUILDS, id).remove(SHELLS, id).remove_stream(&stream(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_number_an_age_or_both() {
        let day = |days: u64| Some(Duration::from_secs(days * 86_400));
        for (text, builds, age) in
            [("1000", Some(1000), None), ("30d", None, day(30)), ("5,1d", Some(5), day(1)), ("1d, 5", Some(5), day(1))]
        {
            assert_eq!(text.parse(), Ok(Keep { builds, age }), "{text}");
        }
        for text in ["", "0", "0s", "1,2", "1d,2d", "many", "1000,", "-1"] {
            assert!(text.parse::<Keep>().unwrap_err().to_string().contains("`1000,30d`"), "{text}");
        }
    }
}
