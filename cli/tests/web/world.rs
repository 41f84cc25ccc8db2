//! Farms with pages, a browser that visits them, and `curl` for what no browser would send.

use std::path::Path;
use std::process::Command;

use kiln_harness::guarded::Guarded;
use kiln_harness::{Farm, Ran, has, until};

/// Whether a browser is installed that a script can drive.
pub fn has_browser() -> bool {
    has("node") && has("chromium") && has("npm")
}

/// The pages' address: whatever port they got.
pub fn pages(farm: &Farm) -> String {
    let scheme = if farm.url.starts_with("https:") { "https" } else { "http" };
    let line = until("the pages to be served", || {
        let log = farm.log("coordinator");
        log.lines().find(|line| line.contains("serving the web pages")).map(str::to_owned)
    });
    let plain: String = line.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |(_, rest)| rest)).collect();
    let at = plain.split("address=").nth(1).or(plain.split("address\":\"").nth(1)).unwrap();
    let address: String = at.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
    format!("{scheme}://{address}")
}

/// A farm for everyone on this machine, with pages and these workers.
pub fn farm(workers: &[&str]) -> (Farm, String) {
    let farm = Farm::with(&["--web-listen", "127.0.0.1:0"], workers);
    let pages = pages(&farm);
    (farm, pages)
}

/// A farm that authenticates its callers, with pages.
pub fn guarded() -> (Guarded, String) {
    let guarded = Guarded::start(&["--web-listen", "127.0.0.1:0"]);
    let pages = pages(&guarded.farm);
    (guarded, pages)
}

/// A one-time link for whoever this access is.
pub fn link(guarded: &Guarded, access: Vec<(String, String)>) -> String {
    let ran = guarded.ran(access, &["web", "--print"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().to_owned()
}

/// Runs a script of this directory in a browser; it must end well.
#[track_caller]
pub fn browse(script: &str, arguments: &[&str]) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web");
    let root = Ran::from({
        let mut command = Command::new("npm");
        command.args(["root", "--global"]);
        command
    });
    let mut command = Command::new("node");
    command.arg(directory.join(script)).args(arguments).env("NODE_PATH", root.out.trim());
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{script}: {}\n{}", ran.out, ran.err);
    ran.out
}

/// An answer as `curl` sees it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// What `curl` with these arguments gets.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Answer {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--insecure", "--include", "--http1.1", "--max-time", "60"])
        .args(arguments);
    let ran = Ran::from(command);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    let (head, body) = ran.out.split_once("\r\n\r\n").unwrap_or((&ran.out, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The cookie that it sets, as a request sends it.
    pub fn cookie(&self) -> String {
        let value = self.header("set-cookie").unwrap_or_else(|| panic!("expected a cookie: {self:?}"));
        value.split(';').next().unwrap().to_owned()
    }
}
