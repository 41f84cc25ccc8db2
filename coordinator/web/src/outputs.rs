//! The ends of what actions printed, which a tool or the farm names by digest: read once for all who look at them.

use std::fmt;
use std::sync::Arc;

use hashlink::LruCache;
use kiln_proto::resource_name::ReadName;
use parking_lot::Mutex;

use crate::blobs::part;
use crate::calls::Client;

/// Bytes that are shown, from the end.
pub(crate) const SHOWN: u64 = 16 << 10;
/// Ends that are kept.
const KEPT: usize = 256;

/// By tenant and name.
type Known = LruCache<(String, String), Arc<Vec<u8>>>;

/// Ends that were shown lately. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ends(Arc<Mutex<Known>>);

impl Default for Ends {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(KEPT))))
    }
}

impl fmt::Debug for Ends {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ends")
    }
}

impl Ends {
    /// The end of an output, if the store has it and the visitor may read it. What one of a tenant's visitors has read, the others see.
    pub(crate) async fn of(&self, client: &Client, tenant: &str, name: &ReadName) -> Option<Arc<Vec<u8>>> {
        let key = (tenant.to_owned(), name.to_string());
        if let Some(known) = self.0.lock().get(&key) {
            return Some(known.clone());
        }
        let from = name.digest.size.saturating_sub(SHOWN);
        let mut data = part(client, name, from, SHOWN).await.ok()?;
        if from > 0 {
            // A line that is cut.
            let begin = data.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            data.drain(..begin);
        }
        let data = Arc::new(data);
        self.0.lock().insert(key, data.clone());
        Some(data)
    }
}
