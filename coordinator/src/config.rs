//! The coordinator's configuration: all of it is checked before anything binds.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What the coordinator needs to know.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where it listens.
    #[arg(long, env = "KILN_LISTEN", default_value = "127.0.0.1:8980", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// Where it keeps blobs, the action cache, builds and artifacts.
    #[arg(long, env = "KILN_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Most bytes of cached blobs, such as `50GiB`; the least recently used are dropped. Artifacts are not counted.
    #[arg(long, env = "KILN_STORE_SIZE", default_value = "50GiB", value_parser = bytes, value_name = "SIZE")]
    pub store_bytes: u64,
}

/// Reads a size: digits, and perhaps a unit such as `MiB` or `GB`.
///
/// # Errors
/// Says what was expected, in words.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; expected such as `512MiB` or `50GiB`");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| wrong())?;
    let unit: f64 = match text[split..].trim() {
        "" | "B" => 1.0,
        "KiB" | "K" => 1024.0,
        "MiB" | "M" => 1024.0 * 1024.0,
        "GiB" | "G" => 1024.0 * 1024.0 * 1024.0,
        "TiB" | "T" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return Err(wrong()),
    };
    let size = number * unit;
    if (1.0..1e18).contains(&size) { Ok(size as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("50GiB"), Ok(50 << 30));
        assert_eq!(bytes("1.5MiB"), Ok(3 << 19));
        assert_eq!(bytes("10MB"), Ok(10_000_000));
        assert_eq!(bytes("7"), Ok(7));
        for bad in ["", "GiB", "0", "-1", "1XB", "1..2M"] {
            assert!(bytes(bad).is_err(), "expected `{bad}` to be refused");
        }
    }
}
