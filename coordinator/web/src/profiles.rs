//! Timing profiles that Bazel uploads, read once for all who look at them.

use std::fmt;
use std::sync::Arc;

use hashlink::LruCache;
use kiln_profile::Profile;
use kiln_proto::v1::Invocation;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::blobs::{named, part};
use crate::calls::Client;
use crate::markup::words;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 32 << 20;
/// Profiles that are kept.
const KEPT: usize = 64;
/// Files that are read at once: each takes a processor for a while.
const AT_ONCE: usize = 2;
/// A profile, or why there is none, in words.
pub(crate) type Known = Arc<Result<Profile, String>>;

/// Profiles that were shown lately. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Profiles {
    /// By tenant and name: whoever asks has seen the invocation that names it.
    known: Arc<Mutex<LruCache<(String, String), Known>>>,
    reading: Arc<Semaphore>,
}

impl Default for Profiles {
    fn default() -> Self {
        Self { known: Arc::new(Mutex::new(LruCache::new(KEPT))), reading: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl fmt::Debug for Profiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Profiles")
    }
}

impl Profiles {
    /// The profile of an invocation that has ended, if it has one here.
    pub(crate) async fn of(&self, client: &Client, tenant: &str, invocation: &Invocation) -> Option<Known> {
        let is_profile = |name: &str| name.ends_with(".profile.gz") || name.ends_with(".profile.json");
        let file = invocation.files.iter().find(|file| is_profile(&file.name))?;
        let name = named(&file.uri)?;
        let key = (tenant.to_owned(), name.to_string());
        if let Some(known) = self.known.lock().get(&key) {
            return Some(known.clone());
        }
        let _place = self.reading.acquire().await.ok()?;
        // Somebody else may have read it in the meantime.
        if let Some(known) = self.known.lock().get(&key) {
            return Some(known.clone());
        }
        if name.digest.size > MAX_FILE {
            return Some(Arc::new(Err(format!("it has more than {}", words::size(MAX_FILE)))));
        }
        let data = match part(client, &name, 0, MAX_FILE).await {
            Ok(data) => data,
            // It may not be there yet, or not any more: that is no reason to remember.
            Err(failure) => return Some(Arc::new(Err(failure.message))),
        };
        let read = tokio::task::spawn_blocking(move || kiln_profile::read(&data).map_err(|error| error.to_string()));
        let known = Arc::new(read.await.unwrap_or_else(|error| Err(error.to_string())));
        self.known.lock().insert(key, known.clone());
        Some(known)
    }
}
