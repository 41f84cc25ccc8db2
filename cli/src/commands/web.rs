//! `kiln web`: opens the farm's web pages, logged in.

use std::process::Stdio;

use kiln_proto::v1::OpenPagesRequest;
use kiln_terminal as terminal;
use tokio::process::Command;
use url::Url;

use crate::farm::Farm;
use crate::{Code, Error, local};

/// Programs that open a URL in the user's browser, the first that is there.
const OPENERS: [&str; 4] = ["xdg-open", "open", "wslview", "sensible-browser"];

pub(super) async fn run(farm: &Farm, print: bool) -> Result<Code, Error> {
    if farm.is_embedded() {
        return Err(Error::Usage(
            "no farm is set, so there are no web pages; start one with `kiln up`, or set `--farm URL`".to_owned(),
        ));
    }
    let opened = farm.call(farm.farm().open_pages(OpenPagesRequest {})).await?.into_inner();
    let link = link(&farm.address(), &opened.url, opened.port, &opened.path)
        .ok_or_else(|| Error::Usage(format!("cannot make a link to the pages of `{}`", farm.url())))?;
    if print {
        local::print(format!("{link}\n").as_bytes())?;
        return Ok(Code::Success);
    }
    if open(&link).await {
        terminal::say("opened the farm's pages in your browser");
        return Ok(Code::Success);
    }
    terminal::say("found no browser; open this link within a minute, once:");
    local::print(format!("{link}\n").as_bytes())?;
    Ok(Code::Success)
}

/// A path at the pages' address: the one that they have for browsers, or else their port at the farm's host.
pub(super) fn link(farm: &str, url: &str, port: u32, path: &str) -> Option<String> {
    let farm = match farm.split_once("://") {
        Some(("grpc", rest)) => format!("http://{rest}"),
        Some(("grpcs", rest)) => format!("https://{rest}"),
        Some(_) => farm.to_owned(),
        None => format!("http://{farm}"),
    };
    let mut link = Url::parse(if url.is_empty() { &farm } else { url }).ok()?;
    if url.is_empty() {
        link.set_port(Some(u16::try_from(port).ok()?)).ok()?;
    }
    link.set_path(path);
    link.set_query(None);
    Some(link.to_string())
}

/// Opens a link in the user's browser; false if there is none.
async fn open(link: &str) -> bool {
    for opener in OPENERS {
        // Other users of this machine can see the link among the processes, until the browser has used it up.
        let ran =
            Command::new(opener).arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if ran.await.is_ok_and(|status| status.success()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_at_the_farms_host_unless_the_pages_have_an_address_of_their_own() {
        let at = |farm, url| link(farm, url, 8982, "/open/x").unwrap();
        assert_eq!(at("https://farm.example:8980", ""), "https://farm.example:8982/open/x");
        assert_eq!(at("http://127.0.0.1:8980", ""), "http://127.0.0.1:8982/open/x");
        assert_eq!(at("grpcs://farm:1", ""), "https://farm:8982/open/x");
        assert_eq!(at("farm:1", ""), "http://farm:8982/open/x");
        assert_eq!(at("https://farm.example:8980", "https://pages.example/"), "https://pages.example/open/x");
        assert_eq!(link("https://farm.example", "", 99_999, "/open/x"), None);
    }
}
