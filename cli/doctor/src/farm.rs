//! A farm as this client sees it: its address, its certificate, who it takes the client for, its clock and its stores.

use std::time::{Duration, SystemTime};

use kiln_proto::channel::{self, Access, MAX_MESSAGE_BYTES};
use kiln_proto::v1::check::State;
use kiln_proto::v1::coordinators_client::CoordinatorsClient;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_proto::v1::{Check, FarmStatus, ListCoordinatorsRequest, StatusRequest};
use kiln_proto::{clock, join};
use tonic::Code;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{coordinators, lacks, ok};

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A certificate that expires sooner should be replaced.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Clocks that differ by more are wrong.
const SMALL: Duration = Duration::from_secs(5);
/// Tokens of identity providers are refused if clocks differ by more.
const LARGE: Duration = Duration::from_secs(30);

const REACHED: &str = "every command that uses the farm calls its coordinator";
const SEVERAL: &str = "when one coordinator is gone, clients and workers turn to another";
const TRUSTED: &str = "it is how the farm is told apart from an impostor";
const KNOWN: &str = "the farm has to know who builds";

/// Looks at the farm at this URL or at these, and answers its status if it can be had.
pub(crate) async fn look(url: &str, access: &Access) -> (Vec<Check>, Option<FarmStatus>) {
    let urls = match channel::addresses(url) {
        Ok(urls) => urls,
        Err(error) => {
            let fix = "kiln login https://HOST:8980,https://HOST:8980";
            return (vec![lacks("connection", State::Missing, words(&error), REACHED, fix)], None);
        }
    };
    // With bad credentials no coordinator can be told from another: that is found below.
    let states = channel::states(url, access).await.unwrap_or_default();
    let mut checks = addresses(&states);
    let is_away = |url: &String| {
        let of_url = |name: &String| name == url || name.starts_with(&format!("{url} "));
        states
            .iter()
            .filter(|(name, _)| of_url(name))
            .all(|(_, state)| state.as_ref().is_err_and(channel::Error::is_away))
    };
    for url in urls.iter().filter(|url| url.starts_with("https://") || url.starts_with("grpcs://")) {
        if states.is_empty() {
            checks.push(certificate(url).await);
        } else if !is_away(url) {
            let check = certificate(url).await;
            checks.push(Check { found: format!("`{url}`: {}", check.found), ..check });
        }
    }
    if let Err(error) = access.check() {
        let fix = "kiln farm certificate NAME --role builder, or correct `--ca`, `--cert`, `--key`, `--token-file`";
        checks.push(lacks("credentials", State::Missing, words(&error), KNOWN, fix));
        return (checks, None);
    }
    let connected = tokio::time::timeout(TIMEOUT, channel::connect(url, access)).await;
    let channel = match connected {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => {
            checks.push(unreachable(url, &error).await);
            return (checks, None);
        }
        Err(_) => {
            let found = format!("no answer within {} s", TIMEOUT.as_secs());
            checks.push(lacks("connection", State::Missing, found, REACHED, address_fix(url)));
            return (checks, None);
        }
    };
    let mut speaking = CoordinatorsClient::new(channel.clone());
    let listing = speaking.list(ListCoordinatorsRequest { only_itself: false });
    // Who may not see them, or calls an earlier version, does without.
    let listed = tokio::time::timeout(TIMEOUT, listing).await.ok().and_then(Result::ok);
    let mut client = FarmClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let before = SystemTime::now();
    let asked = tokio::time::timeout(TIMEOUT, client.status(StatusRequest {})).await;
    let status = match asked.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))) {
        Ok(status) => status.into_inner(),
        Err(status) => {
            checks.push(refused(url, &status));
            return (checks, None);
        }
    };
    checks.push(ok("connection", "the coordinator answers", REACHED));
    checks.push(ok("credentials", "accepted", KNOWN));
    checks.push(version(&status));
    checks.extend(listed.iter().flat_map(|listed| coordinators::checks(&listed.get_ref().coordinators)));
    checks.extend(time(&status, before, SystemTime::now()));
    checks.extend(status.stores.iter().cloned());
    (checks, Some(status))
}

/// Whether each of several coordinators answers. The farm works with one of them.
fn addresses(states: &[(String, Result<(), channel::Error>)]) -> Vec<Check> {
    let state = if states.iter().any(|(_, state)| state.is_ok()) { State::Warning } else { State::Missing };
    let check = |(url, found): &(String, Result<(), channel::Error>)| match found {
        Ok(()) => ok("coordinator", format!("`{url}` answers"), SEVERAL),
        Err(error) => {
            let fix = address_fix(url.split(' ').next().unwrap_or_default());
            lacks("coordinator", state, format!("`{url}`: {}", words(error)), SEVERAL, fix)
        }
    };
    states.iter().map(check).collect()
}

fn words(error: &dyn std::error::Error) -> String {
    kiln_terminal::chain(error).replace('\n', ": ")
}

fn address_fix(url: &str) -> String {
    let url = url.split(',').next().unwrap_or_default();
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    match host.rsplit_once(':') {
        Some((host, port)) => {
            format!("nc -vz {host} {port}, and on the coordinator's machine: systemctl status kiln-coordinator")
        }
        None => "systemctl status kiln-coordinator # on the coordinator's machine".to_owned(),
    }
}

async fn unreachable(url: &str, error: &channel::Error) -> Check {
    // Of several, each has a line of its own.
    let found = match channel::stranger(url).await.filter(|_| !url.contains(',')) {
        Some(stranger) => stranger,
        None => words(error),
    };
    match error {
        channel::Error::Refused { .. } => {
            let fix = format!("kiln login {url} --ca FILE, with `ca.pem` of the farm's directory");
            lacks("trust", State::Missing, found, TRUSTED, fix)
        }
        channel::Error::Exposed { .. } => lacks(
            "connection",
            State::Missing,
            found,
            "others could read the token",
            url.replacen("http://", "https://", 1),
        ),
        channel::Error::Address { .. } | channel::Error::Addresses(_) => {
            lacks("connection", State::Missing, found, REACHED, "kiln login https://HOST:8980")
        }
        channel::Error::Access(_) => lacks("credentials", State::Missing, found, KNOWN, "kiln login URL"),
        channel::Error::Connect { .. }
        | channel::Error::Silent { .. }
        | channel::Error::Unhealthy { .. }
        | channel::Error::Nobody { .. } => lacks("connection", State::Missing, found, REACHED, address_fix(url)),
    }
}

/// A coordinator that does not tell its status.
fn refused(url: &str, status: &tonic::Status) -> Check {
    let found = status.message().to_owned();
    if let Some(reason) = channel::refusal(status) {
        return lacks("credentials", State::Missing, reason, KNOWN, format!("kiln login {url}"));
    }
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            lacks("credentials", State::Missing, found, KNOWN, format!("kiln login {url}"))
        }
        Code::FailedPrecondition => {
            let why = "programs more than one protocol version apart do not work together";
            lacks(
                "versions",
                State::Missing,
                found,
                why,
                "upgrade the side that is named: coordinator, then workers, then clients",
            )
        }
        Code::Unimplemented => lacks(
            "connection",
            State::Missing,
            "a server that is no coordinator answers",
            REACHED,
            "kiln login https://HOST:8980",
        ),
        _ => lacks("connection", State::Missing, found, REACHED, address_fix(url)),
    }
}

async fn certificate(url: &str) -> Check {
    const NAME: &str = "certificate";
    let chain = tokio::time::timeout(TIMEOUT, join::chain(url)).await;
    let chain = match chain {
        Ok(Ok(chain)) => chain,
        Ok(Err(error)) => return lacks(NAME, State::Missing, words(&error), TRUSTED, address_fix(url)),
        Err(_) => return lacks(NAME, State::Missing, "no handshake within 10 s", TRUSTED, address_fix(url)),
    };
    let Some((_, own)) = chain.first().and_then(|own| X509Certificate::from_der(own).ok()) else {
        return lacks(NAME, State::Missing, "it cannot be read", TRUSTED, address_fix(url));
    };
    // A chain is as good as the certificate in it that expires first.
    let parsed: Vec<_> = chain.iter().filter_map(|one| X509Certificate::from_der(one).ok()).collect();
    let ends = parsed.iter().map(|(_, one)| one.validity().not_after);
    let (begin, end) =
        (own.validity().not_before, ends.min_by_key(|end| end.timestamp()).unwrap_or(own.validity().not_after));
    let second = |at: i64| {
        let since = Duration::from_secs(u64::try_from(at).unwrap_or_default());
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let now = SystemTime::now();
    let shown = format!("of `{}`, signed by `{}`, valid until {end}", own.subject(), own.issuer());
    let fix = "kiln farm renew --host NAME --farm-dir DIR # on the coordinator's machine";
    if second(begin.timestamp()) > now {
        return lacks(
            NAME,
            State::Missing,
            format!("{shown}; not valid before {begin}"),
            TRUSTED,
            "timedatectl set-ntp true",
        );
    }
    match second(end.timestamp()).duration_since(now) {
        Err(_) => lacks(NAME, State::Missing, format!("{shown}; it has expired"), TRUSTED, fix),
        Ok(left) if left < SOON => lacks(NAME, State::Warning, shown, TRUSTED, fix),
        Ok(_) => {
            ok(NAME, format!("{shown}, {} in the chain", kiln_terminal::count(chain.len(), "certificate")), TRUSTED)
        }
    }
}

fn version(status: &FarmStatus) -> Check {
    let why = "client and coordinator may be one protocol version apart";
    let own = env!("CARGO_PKG_VERSION");
    if status.version == own {
        return ok("versions", format!("the coordinator has {own}, as this `kiln`"), why);
    }
    let found = format!("the coordinator has {}, this `kiln` {own}; they work together", status.version);
    lacks("versions", State::Warning, found, why, "upgrade the older side: coordinator, then workers, then clients")
}

/// The difference of the clocks, as far as the time of the call lets it be known.
fn time(status: &FarmStatus, before: SystemTime, after: SystemTime) -> Option<Check> {
    const NAME: &str = "clock";
    const WHY: &str = "certificates and tokens are valid for a time";
    let theirs = clock::read_timestamp(status.time.as_ref()?)?;
    let (apart, is_ahead) = match (theirs.duration_since(after), before.duration_since(theirs)) {
        (Ok(apart), _) => (apart, true),
        (_, Ok(apart)) => (apart, false),
        // Within the call: nobody knows better.
        _ => (Duration::ZERO, false),
    };
    let found = match apart.as_secs() {
        0 => "the coordinator's is the same".to_owned(),
        _ => format!(
            "the coordinator's is {} {}",
            kiln_terminal::duration(apart),
            if is_ahead { "ahead" } else { "behind" }
        ),
    };
    let fix = "timedatectl set-ntp true # on the machine whose clock is wrong";
    Some(match apart {
        apart if apart > LARGE => lacks(NAME, State::Missing, found, WHY, fix),
        apart if apart > SMALL => lacks(NAME, State::Warning, found, WHY, fix),
        _ => ok(NAME, found, WHY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_a_little() {
        let (before, after) =
            (SystemTime::UNIX_EPOCH + Duration::from_secs(1000), SystemTime::UNIX_EPOCH + Duration::from_secs(1002));
        let of = |seconds| {
            let status = FarmStatus {
                time: Some(kiln_proto::protobuf::Timestamp { seconds, nanos: 0 }),
                ..FarmStatus::default()
            };
            time(&status, before, after).unwrap()
        };
        for (seconds, state) in [
            (1001, State::Ok),
            (997, State::Ok),
            (990, State::Warning),
            (1020, State::Warning),
            (960, State::Missing),
            (1040, State::Missing),
            (0, State::Missing),
        ] {
            assert_eq!(of(seconds).state(), state, "{seconds}");
        }
        assert!(of(4602).found.contains("ahead") && of(960).found.contains("behind"));
        assert!(
            time(&FarmStatus::default(), before, after).is_none(),
            "expected an older coordinator to be no finding"
        );
    }
}
