//! What several of the farm's pages are made of. Everything here is a function of its arguments, and of the time where it says so.

pub mod drawing;
pub mod notified;
pub mod reproduced;
pub mod stated;
pub mod tree;
pub mod usage;
pub mod words;

use kiln_proto::v1::Status;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What an address may have as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text as a part of an address.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A status with its mark.
pub fn badge(status: Status) -> Markup {
    html! { span class={ "badge " (words::class(status)) } { (words::status(status)) } }
}

/// Something to read where there is nothing to list.
pub fn nothing(content: Markup) -> Markup {
    html! { div .nothing { (content) } }
}
