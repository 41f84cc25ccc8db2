//! A server of files over HTTP, for `ADD` of URLs and, by git's plain protocol, of repositories.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// When all files were modified: 1000000000 seconds after 1970.
const MODIFIED: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

/// A running server; it ends with the process.
pub struct Server {
    address: String,
    directories: Directories,
}

/// What is served, by the first part of the path.
type Directories = Arc<Mutex<BTreeMap<String, PathBuf>>>;

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let directories = Directories::default();
        let served = directories.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || answer(stream, &served));
            }
        });
        Self { address, directories }
    }

    /// Serves a directory; returns its URL.
    pub fn serve(&self, name: &str, directory: &Path) -> String {
        self.directories.lock().unwrap().insert(name.to_owned(), directory.to_owned());
        format!("{}/{name}", self.address)
    }
}

fn answer(mut stream: TcpStream, directories: &Directories) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1)?.split('?').next()?.to_owned();
    let path = percent_encoding::percent_decode_str(&path).decode_utf8().ok()?.into_owned();
    let (name, rest) = path.trim_start_matches('/').split_once('/')?;
    let directory = directories.lock().unwrap().get(name).cloned();
    let found = directory.filter(|_| !rest.split('/').any(|part| part == ".."));
    let found = found.map(|directory| directory.join(rest)).filter(|path| path.is_file());
    match found.and_then(|path| std::fs::read(path).ok()) {
        Some(data) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nLast-Modified: {MODIFIED}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                data.len()
            );
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(if request.starts_with("HEAD ") { &[] } else { &data }).ok()
        }
        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok(),
    }
}
