//! The ports of `EXPOSE`.

use std::net::IpAddr;

/// What a port's text says.
pub(super) struct Ports {
    /// The first and the last port.
    pub(super) range: (u16, u16),
    /// In lower case.
    pub(super) protocol: String,
    /// Whether the protocol was written in another case.
    pub(super) is_upper: bool,
    /// Whether there is an address, or a port of the host.
    pub(super) has_host: bool,
}

/// Reads `[ADDRESS:][HOST_PORT:]PORT[-PORT][/PROTOCOL]`.
pub(super) fn read(text: &str) -> Result<Ports, String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    let lower = protocol.to_lowercase();
    let protocol_or_tcp = match lower.as_str() {
        "" => "tcp",
        known @ ("tcp" | "udp" | "sctp") => known,
        _ => return Err(format!("the protocol `{protocol}` is none of `tcp`, `udp` and `sctp`")),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("`{bare}` is not an IP address"));
    }
    let range = ports(port)?;
    if !host.is_empty() {
        let other = ports(host)?;
        let length = |(first, last): (u16, u16)| last.abs_diff(first);
        if length(other) != length(range) && range.0 != range.1 {
            return Err("the ranges of ports have different lengths".to_owned());
        }
    }
    Ok(Ports {
        range,
        protocol: protocol_or_tcp.to_owned(),
        is_upper: protocol != lower,
        has_host: !address.is_empty() || !host.is_empty(),
    })
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| {
        let digits = text.strip_prefix('+').unwrap_or(text);
        digits.parse::<u16>().map_err(|_| match text.is_empty() {
            true => "a port is missing".to_owned(),
            false => format!("`{text}` is not a port from 0 to 65535"),
        })
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first)?, port(last)?) {
        (first, last) if last < first => Err(format!("the range `{text}` ends before it begins")),
        range => Ok(range),
    }
}
