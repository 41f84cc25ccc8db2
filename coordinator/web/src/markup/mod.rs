//! What pages are made of: the frame around each, and small parts that several have.

pub(crate) mod drawing;
pub(crate) mod tree;
pub(crate) mod words;

use kiln_auth::Identity;
use kiln_proto::v1::Status;
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::assets;

/// What an address may have as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text as a part of an address.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The parts of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Builds,
    Artifacts,
    Invocations,
    Farm,
    None,
}

/// The frame around a page.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) title: &'a str,
    pub(crate) section: Section,
    /// Who sees it; nobody before the login.
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) has_session: bool,
    /// Where the page learns what changes.
    pub(crate) live: Option<String>,
}

const SECTIONS: [(Section, &str, &str); 4] = [
    (Section::Builds, "/builds", "Builds"),
    (Section::Artifacts, "/artifacts", "Artifacts"),
    (Section::Invocations, "/invocations", "Bazel"),
    (Section::Farm, "/farm", "Farm"),
];

impl Frame<'_> {
    /// The page with this content.
    pub(crate) fn around(&self, content: Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Kiln" }
                    link rel="icon" type="image/svg+xml" href=(assets::path("icon.svg"));
                    link rel="stylesheet" href=(assets::path("style.css"));
                    script src=(assets::path("live.js")) defer {}
                }
                body {
                    a .skip href="#main" { "Skip to the content" }
                    header .top {
                        div .wide {
                            a .brand href="/" { img src=(assets::path("icon.svg")) alt="" width="22" height="22"; "Kiln" }
                            @if self.identity.is_some() { (self.navigation()) }
                        }
                    }
                    main #main .wide tabindex="-1" data-live=[self.live.as_deref()] { (content) }
                }
            }
        }
    }

    fn navigation(&self) -> Markup {
        html! {
            nav aria-label="Main" {
                @for (section, address, name) in SECTIONS {
                    a href=(address) aria-current=[(section == self.section).then_some("page")] { (name) }
                }
            }
            @if let Some(identity) = self.identity.filter(|identity| !identity.is_anonymous()) {
                div .me {
                    span title=(roles(identity)) {
                        (identity.name)
                        @if !identity.tenant.is_empty() { span .dim { " · " (identity.tenant) } }
                    }
                    @if self.has_session { (log_out()) }
                }
            } @else if self.has_session {
                div .me { (log_out()) }
            }
        }
    }
}

fn log_out() -> Markup {
    html! { form method="post" action="/logout" { button .quiet type="submit" { "Log out" } } }
}

fn roles(identity: &Identity) -> String {
    identity.roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")
}

/// A status with its mark.
pub(crate) fn badge(status: Status) -> Markup {
    html! { span class={ "badge " (words::class(status)) } { (words::status(status)) } }
}

/// Something to read where there is nothing to list.
pub(crate) fn nothing(content: Markup) -> Markup {
    html! { div .nothing { (content) } }
}
