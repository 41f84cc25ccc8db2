//! What the coordinators of one farm must know of its members, wherever it was recorded: revocations, and which workers joined.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::async_trait;

use super::revoked;

/// The page with revocations.
pub(super) const REVOKED: &str = "revoked";
/// The page with the workers that joined.
pub const JOINED: &str = "joined";
/// The page with the workers that are distrusted.
pub const DISTRUSTED: &str = "distrusted";
/// All pages.
pub const PAGES: [&str; 3] = [REVOKED, JOINED, DISTRUSTED];
/// The file with them that a coordinator has in its data directory while it is alone.
pub const JOINED_FILE: &str = "joined.toml";

/// How often other coordinators' revocations are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where coordinators of one farm keep together what none of them may forget: a few texts by name.
#[async_trait]
pub trait Ledger: Debug + Send + Sync {
    /// A text; none if it was never written.
    ///
    /// # Errors
    /// If the ledger cannot be reached.
    async fn read(&self, name: &str) -> Result<Option<String>, String>;

    /// Replaces a text. When this returns, all coordinators find it.
    ///
    /// # Errors
    /// If the ledger cannot be reached, or this coordinator does not lead.
    async fn write(&self, name: &str, text: String) -> Result<(), String>;
}

/// The revocations in a ledger, as they were last seen. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Common(Arc<Mutex<revoked::File>>);

impl Common {
    /// The revocations of a file and of the ledger together.
    pub(super) fn with(&self, mut file: revoked::File) -> revoked::File {
        let common = self.0.lock();
        file.names.extend(common.names.iter().cloned());
        file.serials.extend(common.serials.iter().cloned());
        file
    }

    /// Takes over other revocations; whether they differ.
    pub(super) fn set(&self, file: revoked::File) -> bool {
        let mut common = self.0.lock();
        let differs = *common != file;
        *common = file;
        differs
    }

    /// Looks for revocations until `changed` says that nobody wants to know.
    pub(super) async fn follow(self, ledger: Arc<dyn Ledger>, changed: impl Fn() -> bool) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_blind = false;
        loop {
            ticks.tick().await;
            let read = read(&*ledger).await;
            match &read {
                Ok(file) => {
                    if self.set(file.clone()) && !changed() {
                        return;
                    }
                }
                // What was revoked stays revoked.
                Err(error) if !is_blind => tracing::warn!(error, "cannot look for other coordinators' revocations"),
                Err(_) => {}
            }
            is_blind = read.is_err();
        }
    }
}

/// The revocations in a ledger.
///
/// # Errors
/// If it cannot be reached, or has something else.
pub(super) async fn read(ledger: &dyn Ledger) -> Result<revoked::File, String> {
    let text = ledger.read(REVOKED).await?.unwrap_or_default();
    toml::from_str(&text).map_err(|error| format!("cannot read the farm's revocations: {error}"))
}

/// Replaces the revocations in a ledger.
///
/// # Errors
/// As [`Ledger::write`].
pub(super) async fn write(ledger: &dyn Ledger, file: &revoked::File) -> Result<(), String> {
    ledger.write(REVOKED, toml::to_string(file).map_err(|error| error.to_string())?).await
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Debug, Default)]
    struct Memory(Mutex<HashMap<String, String>>);

    #[async_trait]
    impl Ledger for Memory {
        async fn read(&self, name: &str) -> Result<Option<String>, String> {
            Ok(self.0.lock().get(name).cloned())
        }

        async fn write(&self, name: &str, text: String) -> Result<(), String> {
            self.0.lock().insert(name.to_owned(), text);
            Ok(())
        }
    }

    #[tokio::test]
    async fn revocations_of_the_ledger_and_of_the_file_count_together() {
        let ledger = Arc::new(Memory::default());
        let common = Common::default();
        let (changed, mut sees) = tokio::sync::watch::channel(0);
        let following = common.clone().follow(ledger.clone(), move || changed.send(1).is_ok());
        tokio::spawn(following);
        let mut file = revoked::File::default();
        file.names.insert("ann".into());
        file.add_serial("0A");
        write(&*ledger, &file).await.unwrap();
        sees.changed().await.unwrap();
        let mut own = revoked::File::default();
        own.names.insert("ben".into());
        let both = common.with(own);
        assert!(both.has_name("ann") && both.has_name("ben") && both.has_serial("a"));
        assert_eq!(read(&*ledger).await.unwrap(), file);
        ledger.write(REVOKED, "names = 7".into()).await.unwrap();
        assert!(read(&*ledger).await.is_err());
    }
}
