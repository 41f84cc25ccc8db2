//! Directories that a program writes.

use std::io::ErrorKind;
use std::path::Path;

/// Whether a path is a directory that this process can write, or can become one. `what` it is for stands in the message.
///
/// # Errors
/// Why it cannot be used.
pub fn usable_directory(what: &str, path: &Path) -> Result<(), String> {
    let wrong = |reason: &str| Err(format!("cannot use the {what} `{}`: {reason}", path.display()));
    match std::fs::metadata(path) {
        Ok(about) if !about.is_dir() => wrong("it is not a directory"),
        Ok(_) if !can_write(path) => wrong("it cannot be written"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            match absolute.ancestors().skip(1).find(|above| above.exists()) {
                Some(above) if above.is_dir() && can_write(above) => Ok(()),
                Some(above) => wrong(&format!("it does not exist, and `{}` cannot be written", above.display())),
                None => wrong("it does not exist"),
            }
        }
        Err(error) => wrong(&error.to_string()),
    }
}

#[cfg(unix)]
fn can_write(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

#[cfg(not(unix))]
fn can_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| !about.permissions().readonly())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_usable_if_it_is_there_or_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(usable_directory("data directory", dir.path()).is_ok());
        assert!(usable_directory("data directory", &dir.path().join("a/b")).is_ok());
        let error = usable_directory("data directory", &file).unwrap_err();
        assert!(error.contains("cannot use the data directory `") && error.contains("not a directory"), "{error}");
        assert!(usable_directory("data directory", &file.join("below")).is_err());
    }
}
