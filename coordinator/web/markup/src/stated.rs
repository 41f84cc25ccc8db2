//! What the farm states about an artifact.

use kiln_proto::v1::Attestation;
use maud::{Markup, html};

use crate::{encoded, words};

/// Digits of a key's id.
const KEY: usize = 16;

/// The statements about an artifact whose page is at `base`, each as a file.
pub fn section(base: &str, statements: &[Attestation]) -> Markup {
    if statements.is_empty() {
        return Markup::default();
    }
    html! {
        section #stated aria-labelledby="stated-title" {
            h2 #stated-title { "Statements" }
            div .scroll { table {
                thead { tr { th { "Statement" } th { "Type" } th { "Signed by" } } }
                tbody { @for one in statements { (row(base, one)) } }
            } }
            @if statements.iter().any(|one| one.bundle.is_some()) {
                p .dim { "Each file is a Sigstore bundle; " code { "kiln verify" } " checks them all." }
            }
        }
    }
}

fn row(base: &str, one: &Attestation) -> Markup {
    html! {
        tr {
            td { a href={ (base) "/statements/" (encoded(&one.name)) } download { (one.name) } }
            td { code { (one.predicate_type) } }
            td {
                @if one.bundle.is_some() { code title=(one.key_id) { (words::short(&one.key_id, KEY)) } }
                @else { span .dim { "nobody" } }
            }
        }
    }
}
