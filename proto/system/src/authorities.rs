//! Certificate authorities as files, for systems whose own store is reached only through a framework.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where macOS and the BSDs keep the authorities that they come with.
const OF_SYSTEM: &str = "/etc/ssl/cert.pem";

/// The authorities in PEM: what `SSL_CERT_FILE` and `SSL_CERT_DIR` name, else what the system comes with in a file. Empty if nothing
/// of that can be read.
pub fn authorities() -> Vec<u8> {
    of(std::env::var_os("SSL_CERT_FILE"), std::env::var_os("SSL_CERT_DIR"), Path::new(OF_SYSTEM))
}

fn of(file: Option<OsString>, directories: Option<OsString>, otherwise: &Path) -> Vec<u8> {
    let named = |value: Option<OsString>| value.filter(|value| !value.is_empty());
    let (file, directories) = (named(file), named(directories));
    let mut files: Vec<PathBuf> = Vec::new();
    if file.is_none() && directories.is_none() {
        files.push(otherwise.to_owned());
    }
    files.extend(file.map(PathBuf::from));
    for directory in directories.iter().flat_map(std::env::split_paths) {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        found.sort();
        files.extend(found);
    }
    let mut pem = Vec::new();
    for content in files.iter().filter_map(|path| std::fs::read(path).ok()) {
        pem.extend(content);
        // A file without a last newline must not swallow the next one's first line.
        pem.push(b'\n');
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pem: &[u8]) -> String {
        String::from_utf8(pem.to_vec()).unwrap()
    }

    #[test]
    fn what_variables_name_comes_in_place_of_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            std::fs::write(dir.path().join(name), content).unwrap();
            dir.path().join(name)
        };
        std::fs::create_dir(dir.path().join("more")).unwrap();
        let (system, one) = (write("system", "S"), write("one", "1"));
        write("more/b", "B");
        write("more/a", "A");
        let more = dir.path().join("more").into_os_string();
        assert_eq!(text(&of(None, None, &system)), "S\n");
        assert_eq!(text(&of(Some("".into()), None, &system)), "S\n", "an empty variable names nothing");
        assert_eq!(text(&of(Some(one.clone().into()), None, &system)), "1\n");
        assert_eq!(text(&of(Some(one.into()), Some(more.clone()), &system)), "1\nA\nB\n");
        assert_eq!(text(&of(Some(dir.path().join("absent").into()), Some(more), &system)), "A\nB\n");
        assert_eq!(text(&of(None, None, &dir.path().join("absent"))), "");
    }
}
