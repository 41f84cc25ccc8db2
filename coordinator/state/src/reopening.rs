//! A database that is reopened after a failure: after an I/O error, redb serves no more requests.

use std::fmt;

use parking_lot::RwLock;
use redb::Database;

type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// An embedded database. A failure closes it, and the next use opens it again.
pub struct Reopening {
    opener: Opener,
    database: RwLock<Option<Database>>,
}

impl fmt::Debug for Reopening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reopening").finish_non_exhaustive()
    }
}

impl Reopening {
    /// Opens the database with `opener`, which is called again after each failure.
    ///
    /// # Errors
    /// Those of the opener.
    pub fn open(
        opener: impl Fn() -> Result<Database, redb::Error> + Send + Sync + 'static,
    ) -> Result<Self, redb::Error> {
        let database = RwLock::new(Some(opener()?));
        Ok(Self { opener: Box::new(opener), database })
    }

    /// Uses the database. Blocks.
    ///
    /// # Errors
    /// Those of the opener, if the database must be opened again, and those of `work`.
    pub fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut open = self.database.read();
        while open.is_none() {
            drop(open);
            let mut database = self.database.write();
            if database.is_none() {
                *database = Some((self.opener)()?);
            }
            drop(database);
            open = self.database.read();
        }
        let result = open.as_ref().map(work);
        drop(open);
        match result {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                tracing::error!(%error, "an embedded database failed; it will be reopened at its next use");
                *self.database.write() = None;
                Err(error)
            }
            None => Err(redb::Error::DatabaseClosed),
        }
    }
}
