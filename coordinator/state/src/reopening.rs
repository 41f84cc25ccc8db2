//! A database that is opened again after it failed: redb serves no more after an I/O error.

use std::fmt;

use parking_lot::RwLock;
use redb::Database;

type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// An embedded database. Whatever fails closes it, and the next use opens it again.
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
    /// Opens the database by `opener`, which is asked again after each failure.
    ///
    /// # Errors
    /// The opener's.
    pub fn open(
        opener: impl Fn() -> Result<Database, redb::Error> + Send + Sync + 'static,
    ) -> Result<Self, redb::Error> {
        let database = RwLock::new(Some(opener()?));
        Ok(Self { opener: Box::new(opener), database })
    }

    /// Uses the database. Blocks.
    ///
    /// # Errors
    /// The opener's, where it is to be opened again, and those of `work`.
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
                tracing::error!(%error, "an embedded database failed; it is opened again at the next use");
                *self.database.write() = None;
                Err(error)
            }
            None => Err(redb::Error::DatabaseClosed),
        }
    }
}
