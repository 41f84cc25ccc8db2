//! An HTTP request like that of a scraper or a load balancer.

use std::io::{Read, Write};
use std::net::TcpStream;

/// The status and the body of `GET path` at this address.
pub fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, body.to_owned())
}

/// What is answered to these bytes, up to the end of the connection.
pub fn raw(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The lines of `/metrics` that are samples.
pub fn samples(address: &str) -> Vec<String> {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n"), "expected a whole answer: {text}");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}
