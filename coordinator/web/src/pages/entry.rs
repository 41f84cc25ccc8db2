//! The pages before the login: where a token is given, and where a link leads.

use maud::{Markup, html};

use crate::markup::{Frame, Section};

fn frame(title: &'static str) -> Frame<'static> {
    Frame { title, section: Section::None, identity: None, has_session: false, live: None }
}

/// Asks for a token, and says why the last one was refused.
pub(crate) fn login(to: &str, refused: Option<&str>) -> Markup {
    frame("Log in").around(html! {
        div .narrow {
            h1 { "Log in" }
            @if let Some(refused) = refused { p .notice role="alert" { (refused) } }
            form .stack method="post" action="/login" {
                input type="hidden" name="to" value=(to);
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="off" spellcheck="false" required autofocus;
                button type="submit" { "Log in" }
            }
            p .dim { "On a machine that uses the farm, " code { "kiln web" } " opens these pages without a token." }
        }
    })
}

/// Where a link leads: the browser itself asks to be logged in, so that nothing that only looks at links uses it up, and no other site is
/// where the session's first page was asked for.
pub(crate) fn open(code: &str) -> Markup {
    frame("Open the farm").around(html! {
        div .narrow {
            h1 { "Open the farm" }
            form .stack method="post" action="/open" data-submit {
                input type="hidden" name="code" value=(code);
                p .dim { "This link works once, within a minute of " code { "kiln web" } "." }
                button type="submit" autofocus { "Open" }
            }
        }
    })
}
