//! Addresses of Sentinels, which know the master of a replicated Redis.
//!
//! `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTER[/DATABASE][?sentinel-user=U&sentinel-password=P]`, as other clients
//! write it. User and password are Redis's; those of the Sentinels are often none.
//! Source: <https://redis.io/docs/latest/develop/reference/sentinel-clients/>.

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{ConnectionAddr, RedisResult, TlsCertificates, TlsMode};

/// Port of a Sentinel, if none is given.
const PORT: u16 = 26_379;

/// Sentinels, and what they are asked for.
#[derive(Clone, Default)]
pub(crate) struct Sentinels {
    hosts: Vec<(String, u16)>,
    master: String,
    database: i64,
    user: Option<String>,
    password: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
}

/// Whether this is an address of Sentinels: if it has TLS, and what follows the scheme.
pub(crate) fn scheme(text: &str) -> Option<(bool, &str)> {
    let plain = text.strip_prefix("redis+sentinel://").map(|rest| (false, rest));
    plain.or_else(|| text.strip_prefix("rediss+sentinel://").map(|rest| (true, rest)))
}

/// The address with `***` for its passwords.
pub(crate) fn hidden(text: &str) -> String {
    let (text, query) = text.split_once('?').map_or((text, None), |(text, query)| (text, Some(query)));
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let mut shown = format!("{scheme}://");
    match rest.rsplit_once('@') {
        Some((login, rest)) => {
            let user = login.split_once(':').map_or("", |(user, _)| user);
            shown.push_str(&format!("{user}:***@{rest}"));
        }
        None => shown.push_str(rest),
    }
    if let Some(query) = query {
        let hide = |pair: &str| match pair.split_once('=') {
            Some(("sentinel-user", _)) => pair.to_owned(),
            Some((key, _)) => format!("{key}=***"),
            None => pair.to_owned(),
        };
        shown.push('?');
        shown.push_str(&query.split('&').map(hide).collect::<Vec<_>>().join("&"));
    }
    shown
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
        .next()
        .map(|(_, value)| value.into_owned());
    decoded.ok_or_else(|| "it cannot be decoded".to_owned())
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl Sentinels {
    /// Parses what follows the scheme.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        let (login, text) = text.rsplit_once('@').map_or((None, text), |(login, text)| (Some(login), text));
        if let Some(login) = login {
            let (user, password) = login.split_once(':').ok_or("expected `USER:PASSWORD` before the `@`")?;
            (found.user, found.password) = (some(decoded(user)?), some(decoded(password)?));
        }
        let mut path = text.split('/');
        for host in path.next().unwrap_or_default().split(',').map(str::trim) {
            found.hosts.push(host_and_port(host)?);
        }
        found.master = decoded(path.next().unwrap_or_default())?;
        if found.master.is_empty() {
            return Err("the name of the master is missing, such as `/mymaster` at its end".to_owned());
        }
        if let Some(database) = path.next().filter(|database| !database.is_empty()) {
            found.database = database.parse().map_err(|_| format!("invalid database `{database}`"))?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = some(decoded(value)?);
            match key {
                "sentinel-user" => found.sentinel_user = value,
                "sentinel-password" => found.sentinel_password = value,
                other => return Err(format!("unknown parameter `{other}`")),
            }
        }
        Ok(found)
    }

    /// A client that asks them for the master.
    pub(crate) fn client(&self, tls: Option<&TlsCertificates>) -> RedisResult<SentinelClient> {
        let place = |(host, port): &(String, u16)| match tls {
            None => ConnectionAddr::Tcp(host.clone(), *port),
            Some(_) => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        };
        let hosts: Vec<_> = self.hosts.iter().map(place).collect();
        let mut client = SentinelClientBuilder::new(hosts, &self.master, SentinelServerType::Master)?
            .set_client_to_redis_db(self.database);
        if let Some(user) = &self.user {
            client = client.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.password {
            client = client.set_client_to_redis_password(password);
        }
        if let Some(user) = &self.sentinel_user {
            client = client.set_client_to_sentinel_username(user);
        }
        if let Some(password) = &self.sentinel_password {
            client = client.set_client_to_sentinel_password(password);
        }
        if let Some(certificates) = tls {
            client = client
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        client.build()
    }
}

/// `HOST`, `HOST:PORT` or `[IPv6]:PORT`.
fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| format!("invalid port `{port}`")))?;
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_sentinels_is_read() {
        let found = Sentinels::parse("u:p%40ss@a,b:1,[::1]:2/main/3?sentinel-password=x%26y").unwrap();
        let host = |host: &str, port| (host.to_owned(), port);
        assert_eq!(found.hosts, [host("a", PORT), host("b", 1), host("::1", 2)]);
        assert_eq!((found.master.as_str(), found.database), ("main", 3));
        assert_eq!((found.user.as_deref(), found.password.as_deref()), (Some("u"), Some("p@ss")));
        assert_eq!(found.sentinel_password.as_deref(), Some("x&y"));
    }
}
