//! The frame around each page; [`kiln_web_markup`] has the small parts that several have.

pub(crate) use kiln_web_markup::{badge, drawing, encoded, nothing, notified, reproduced, stated, tree, usage, words};

use kiln_auth::Identity;
use maud::{DOCTYPE, Markup, html};

use crate::assets;

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
