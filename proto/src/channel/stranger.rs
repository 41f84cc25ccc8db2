//! Finds out which server responds at a farm's address after plain HTTP/2 failed.
//!
//! With any other server, an HTTP/2 client only learns that its first frame is invalid. A second, manual request
//! reveals by the first bytes of the response what the server is.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Uri;

/// Time limit for the response.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// The client's preface and an empty SETTINGS frame (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Describes the server at a farm's plain `http://` address; `None` if it speaks HTTP/2, or cannot be identified.
pub async fn stranger(url: &str) -> Option<String> {
    if url.starts_with("unix://") {
        return None;
    }
    let endpoint = super::endpoint(url, &super::Access::default()).ok()?;
    let uri: &Uri = endpoint.uri();
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let address = format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(80));
    let first = tokio::time::timeout(REPLY_TIMEOUT, first_bytes(&address)).await.ok()??;
    describe(&first, &address)
}

async fn first_bytes(address: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(PREFACE).await.ok()?;
    let mut data = vec![0; 1024];
    let count = stream.read(&mut data).await.ok()?;
    data.truncate(count);
    Some(data)
}

fn describe(first: &[u8], address: &str) -> Option<String> {
    let text = String::from_utf8_lossy(first);
    match first {
        [] => None,
        // A TLS record with an alert (RFC 8446, 5.1).
        [0x15, 0x03, ..] => Some(format!("it speaks TLS; use `https://{address}`")),
        _ if text.starts_with("HTTP/1.") => {
            if text.contains("HTTPS port") {
                return Some(format!("it speaks TLS; use `https://{address}`"));
            }
            let mut headers = text.lines().filter_map(|line| line.split_once(':'));
            let server = headers.find(|(name, _)| name.eq_ignore_ascii_case("server")).map(|(_, value)| value.trim());
            let server = server.filter(|name| name.chars().all(|c| !c.is_control())).map(|name| format!(" ({name})"));
            Some(format!("a web server{} responds there, not a coordinator", server.unwrap_or_default()))
        }
        _ if text.starts_with("SSH-") => Some("an SSH server responds there, not a coordinator".to_owned()),
        _ if text.starts_with("-ERR") => Some("a Redis server responds there, not a coordinator".to_owned()),
        // The server's own SETTINGS frame.
        [_, _, _, 0x04, ..] => None,
        _ => Some("the server there is not a coordinator: it does not speak gRPC".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_by_their_first_bytes() {
        let told = |first: &[u8]| describe(first, "farm:8980").unwrap_or_default();
        assert_eq!(told(b"\x15\x03\x03\0\x02\x02\x46"), "it speaks TLS; use `https://farm:8980`");
        let nginx = b"HTTP/1.1 400 Bad Request\r\nServer: nginx/1.22.1\r\n\r\n";
        assert_eq!(told(nginx), "a web server (nginx/1.22.1) responds there, not a coordinator");
        assert_eq!(told(b"HTTP/1.0 501 Unsupported\r\n\r\n"), "a web server responds there, not a coordinator");
        assert!(told(b"SSH-2.0-OpenSSH_9.2\r\n").starts_with("an SSH server"));
        assert!(told(b"\x4a\0\0\0\x0a8.0.36\0").contains("does not speak gRPC"));
        assert_eq!(told(b"\0\0\x18\x04\0\0\0\0\0"), "");
        assert_eq!(told(b""), "");
    }
}
