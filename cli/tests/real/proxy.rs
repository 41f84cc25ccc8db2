//! A way to a process that counts the bytes which go by.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Passes connections on to a process, and counts.
pub struct Proxy {
    pub url: String,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

/// Bytes that went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Towards the process.
    pub up: u64,
    /// From the process.
    pub down: u64,
}

impl Proxy {
    /// A way to what listens at this URL.
    pub fn to(url: &str) -> Self {
        Self::at("127.0.0.1:0", url)
    }

    /// The same, that begins at an address.
    pub fn at(address: &str, url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Self { url, up: Arc::default(), down: Arc::default() };
        let (up, down) = (proxy.up.clone(), proxy.down.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(&target)) else { continue };
                for (from, to, count) in [(&near, &far, &up), (&far, &near, &down)] {
                    let (from, to, count) = (from.try_clone().unwrap(), to.try_clone().unwrap(), count.clone());
                    std::thread::spawn(move || pass(from, to, &count));
                }
            }
        });
        proxy
    }

    /// What went by since this was asked last.
    pub fn passed(&self) -> Passed {
        Passed { up: self.up.swap(0, Ordering::Relaxed), down: self.down.swap(0, Ordering::Relaxed) }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        count.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}
