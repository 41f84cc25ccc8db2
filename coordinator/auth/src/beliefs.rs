//! Which workers are distrusted, where that is written down: in a file of the only coordinator of a farm, or in the farm's ledger.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::{DISTRUSTED, Ledger};
use kiln_state::Distrusted;
use kiln_state::distrust::Periods;
use tokio::sync::Mutex;
use tonic::Status;

/// How often a coordinator looks for what another one has written down.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who is distrusted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Beliefs {
    known: Distrusted,
    place: Place,
    /// Held by whoever reads them to write them again.
    writing: Arc<Mutex<()>>,
}

#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    Ledger(Arc<dyn Ledger>),
}

impl Beliefs {
    /// Reads what was written down, for the only coordinator of a farm or one of several. Of several, each follows what the others write.
    ///
    /// # Errors
    /// If it cannot be read: a coordinator that did not know would hand out what is not to be believed.
    pub async fn open(data_dir: &Path, ledger: Option<Arc<dyn Ledger>>) -> Result<Self, String> {
        let place = match ledger {
            Some(ledger) => Place::Ledger(ledger),
            None => Place::File(data_dir.join(format!("{DISTRUSTED}.toml"))),
        };
        let beliefs = Self { known: Distrusted::default(), place, writing: Arc::default() };
        beliefs
            .known
            .set(beliefs.read().await.map_err(|error| format!("cannot read which workers are distrusted: {error}"))?);
        if let Place::Ledger(_) = &beliefs.place {
            tokio::spawn(beliefs.clone().follow());
        }
        Ok(beliefs)
    }

    /// What all that reads results looks at.
    pub fn known(&self) -> &Distrusted {
        &self.known
    }

    /// Changes the periods; in force in this coordinator when it returns, and in the farm's others within a second.
    ///
    /// # Errors
    /// What `change` answers, or `UNAVAILABLE` if it cannot be written down.
    pub async fn change(&self, change: impl FnOnce(&mut Periods) -> Result<(), Status>) -> Result<(), Status> {
        let unavailable =
            |error: String| Status::unavailable(format!("cannot record whom to distrust: {error}; try again"));
        let _alone = self.writing.lock().await;
        let mut periods = self.read().await.map_err(unavailable)?;
        change(&mut periods)?;
        self.write(&periods).await.map_err(unavailable)?;
        self.known.set(periods);
        Ok(())
    }

    async fn follow(self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_blind = false;
        loop {
            ticks.tick().await;
            let read = self.read().await;
            match &read {
                Ok(periods) => drop(self.known.set(periods.clone())),
                // Whoever was distrusted stays so.
                Err(error) if !is_blind => tracing::warn!(error, "cannot look whom other coordinators distrust"),
                Err(_) => {}
            }
            is_blind = read.is_err();
        }
    }

    async fn read(&self) -> Result<Periods, String> {
        let text = match &self.place {
            Place::Ledger(ledger) => ledger.read(DISTRUSTED).await?,
            Place::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(format!("`{}`: {error}", path.display())),
            },
        };
        Periods::read(&text.unwrap_or_default())
    }

    async fn write(&self, periods: &Periods) -> Result<(), String> {
        match &self.place {
            Place::Ledger(ledger) => ledger.write(DISTRUSTED, periods.text()).await,
            Place::File(path) => {
                let (path, text) = (path.clone(), periods.text());
                let written = tokio::task::spawn_blocking(move || kiln_state::replace(&path, &text));
                written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
            }
        }
    }
}
