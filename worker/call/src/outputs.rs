//! Puts what a call made into its place.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_call::Output;

/// Puts all of these outputs in place, or none if one cannot be written. The contents are read from their beginning.
pub(crate) fn place(outputs: &[Output], contents: &mut [File]) -> io::Result<()> {
    if outputs.len() != contents.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut placed = Vec::new();
    for (output, content) in outputs.iter().zip(contents) {
        placed.push(Placed::write(Path::new(&output.path), output.executable, content)?);
    }
    placed.iter_mut().try_for_each(Placed::finish)
}

/// An output beside its place until it is renamed; removed on drop.
struct Placed {
    temporary: Option<PathBuf>,
    path: PathBuf,
}

impl Placed {
    fn write(path: &Path, executable: bool, content: &mut File) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut temporary = OsString::from(".kiln-");
        temporary.push(format!("{}-", std::process::id()));
        temporary.push(name);
        let temporary = directory.join(temporary);
        // The step's umask applies, as it does to what a compiler creates.
        let mode = if executable { 0o777 } else { 0o666 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        let placed = Self { temporary: Some(temporary), path: path.to_owned() };
        io::copy(content, &mut file)?;
        Ok(placed)
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, &self.path)?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}
