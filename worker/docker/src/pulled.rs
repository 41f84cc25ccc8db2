//! Images that this worker pulled. They are removed when unused for long, or when the disk is nearly full.
//!
//! Invariant: only images that this worker itself pulled are removed, and only by the name under which it did. An image
//! stays if the engine had it before, if it has another name, if a container uses it, or if something else has tagged
//! or pulled it since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How long an unused image is kept.
const KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long an unused image is kept although the disk is nearly full.
const KEEP_AT_LEAST: Duration = Duration::from_secs(30 * 60);
/// The disk is nearly full if less than one part in this many is free.
const NEARLY_FULL: u64 = 10;
/// How often uses are saved.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// The images by name; saved to a file that survives a restart of the worker.
#[derive(Debug)]
pub(super) struct Pulled {
    file: PathBuf,
    images: Mutex<BTreeMap<String, Image>>,
}

/// An image that this worker pulled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
struct Image {
    /// Last use, in seconds of Unix time.
    used: u64,
    /// The time of the last tag that the engine reported after the pull. A different value means that something else
    /// tagged it since.
    #[serde(skip_serializing_if = "Option::is_none")]
    tagged: Option<String>,
}

/// Earlier versions saved only the last use.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Used(u64),
    Image {
        used: u64,
        #[serde(default)]
        tagged: Option<String>,
    },
}

impl From<Written> for Image {
    fn from(written: Written) -> Self {
        match written {
            Written::Used(used) => Self { used, tagged: None },
            Written::Image { used, tagged } => Self { used, tagged },
        }
    }
}

impl Pulled {
    /// Opens the list, including the images of earlier runs of this worker.
    pub(super) fn open(directory: &Path) -> Self {
        let file = directory.join("pulled.json");
        let known = std::fs::read(&file).ok().and_then(|data| serde_json::from_slice(&data).ok());
        Self { file, images: Mutex::new(known.unwrap_or_default()) }
    }

    /// Records a pull. An image that existed before counts only if this worker had pulled it then, too.
    pub(super) fn add(&self, name: &str, is_new: bool, tagged: Option<String>) {
        let mut images = self.images.lock();
        if is_new || images.contains_key(name) {
            images.insert(name.to_owned(), Image { used: now(), tagged });
            self.note(&images);
        }
    }

    /// Whether something else has tagged or pulled an image since, judged by what the engine reports now.
    pub(super) fn is_taken(&self, name: &str, tagged: Option<&str>) -> bool {
        let known = self.images.lock().get(name).and_then(|image| image.tagged.clone());
        known.is_some_and(|known| tagged.is_some_and(|tagged| tagged != known))
    }

    /// Records a use, if this worker pulled the image.
    pub(super) fn touch(&self, name: &str) {
        let mut images = self.images.lock();
        let Some(image) = images.get_mut(name) else { return };
        if now().saturating_sub(image.used) >= NOTE_EVERY.as_secs() {
            image.used = now();
            self.note(&images);
        }
    }

    /// Whether this worker pulled the image.
    pub(super) fn has(&self, name: &str) -> bool {
        self.images.lock().contains_key(name)
    }

    /// Forgets an image that no longer exists.
    pub(super) fn forget(&self, name: &str) {
        let mut images = self.images.lock();
        if images.remove(name).is_some() {
            self.note(&images);
        }
    }

    /// The images to remove now, longest unused first.
    pub(super) fn unwanted(&self) -> Vec<String> {
        let parent = self.file.parent().unwrap_or(Path::new("/"));
        let nearly_full = rustix::fs::statvfs(parent).is_ok_and(|disk| disk.f_bavail < disk.f_blocks / NEARLY_FULL);
        unwanted(&self.images.lock(), now(), nearly_full)
    }

    fn note(&self, images: &BTreeMap<String, Image>) {
        let temporary = self.file.with_extension("tmp");
        let written = serde_json::to_vec(images).map_err(std::io::Error::other);
        let written = written.and_then(|data| std::fs::write(&temporary, data));
        if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, &self.file)) {
            tracing::warn!(%error, "cannot save which images were pulled");
        }
    }
}

fn unwanted(images: &BTreeMap<String, Image>, now: u64, nearly_full: bool) -> Vec<String> {
    let keep = if nearly_full { KEEP_AT_LEAST } else { KEEP };
    let all = images.iter().map(|(name, image)| (image.used, name));
    let mut old: Vec<(u64, &String)> = all.filter(|(used, _)| now.saturating_sub(*used) > keep.as_secs()).collect();
    old.sort_unstable();
    old.into_iter().map(|(_, name)| name.clone()).collect()
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_used_for_a_week_is_unwanted_and_sooner_where_the_disk_is_nearly_full() {
        let day = 24 * 60 * 60;
        let image = |used| Image { used, tagged: None };
        let images = [("new", 100 * day), ("older", 98 * day), ("oldest", 90 * day)];
        let images = images.into_iter().map(|(name, used)| (name.to_owned(), image(used))).collect();
        assert_eq!(unwanted(&images, 100 * day, false), ["oldest"]);
        assert_eq!(unwanted(&images, 100 * day + 60, true), ["oldest", "older"]);
    }

    #[test]
    fn it_is_remembered_what_was_pulled_and_nothing_else_counts() {
        let dir = tempfile::tempdir().unwrap();
        let pulled = Pulled::open(dir.path());
        pulled.add("shop@sha256:1", true, Some("never".into()));
        pulled.touch("the-users-own");
        pulled.add("the-users-own", false, None);
        assert_eq!(*Pulled::open(dir.path()).images.lock(), *pulled.images.lock());
        assert_eq!(pulled.images.lock().len(), 1);
        let is_taken = |tagged| pulled.is_taken("shop@sha256:1", tagged);
        assert!(is_taken(Some("today")) && !is_taken(Some("never")) && !is_taken(None));
        pulled.forget("shop@sha256:1");
        assert!(Pulled::open(dir.path()).images.lock().is_empty());
    }

    #[test]
    fn a_file_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pulled.json"), r#"{"shop@sha256:1":7}"#).unwrap();
        let pulled = Pulled::open(dir.path());
        assert_eq!(pulled.images.lock()["shop@sha256:1"], Image { used: 7, tagged: None });
        assert!(!pulled.is_taken("shop@sha256:1", Some("today")), "expected what was not noted to tell nothing");
    }
}
