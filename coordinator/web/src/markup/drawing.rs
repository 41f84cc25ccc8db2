//! A quantity over time, drawn as one area for each span, without a script.

use maud::{Markup, html};

/// Height of a drawing, in its own units.
const HEIGHT: u64 = 1_000;

/// A span of time with its value.
#[derive(Debug)]
pub(crate) struct Span {
    /// Where it begins and ends, in any unit from 0.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) value: u64,
    /// What it says when one points at it.
    pub(crate) title: String,
}

/// One quantity over time.
#[derive(Debug)]
pub(crate) struct Drawing {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// In a sentence, also for those who do not see it.
    pub(crate) summary: String,
    /// One after the other.
    pub(crate) spans: Vec<Span>,
    /// The value at the upper edge, and what it is called.
    pub(crate) top: u64,
    pub(crate) top_words: String,
    /// The time at the left and the right edge.
    pub(crate) edges: [String; 2],
    /// What is allowed, if it is in the picture.
    pub(crate) limit: Option<u64>,
}

impl Drawing {
    pub(crate) fn draw(&self) -> Markup {
        let total = self.spans.last().map_or(1, |span| span.end).max(1);
        let top = self.top.max(1);
        let height = |value: u64| {
            u64::try_from(u128::from(value.min(top)) * u128::from(HEIGHT) / u128::from(top)).unwrap_or(HEIGHT)
        };
        html! {
            figure .drawing id=(self.id) {
                figcaption { strong { (self.title) } " " span .dim { (self.summary) } }
                div .plot {
                    span .edge.dim aria-hidden="true" { (self.top_words) }
                    svg viewBox={ "0 0 " (total) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (self.title) ": " (self.summary) } {
                        @for span in &self.spans {
                            @let (width, height) = (span.end.saturating_sub(span.begin), height(span.value));
                            g {
                                title { (span.title) }
                                // All of the span's height answers to the pointer.
                                rect .under x=(span.begin) y="0" width=(width) height=(HEIGHT) {}
                                rect .value x=(span.begin) y=(HEIGHT - height) width=(width) height=(height) {}
                            }
                        }
                        @if let Some(limit) = self.limit {
                            @let y = HEIGHT - height(limit);
                            line .limit x1="0" x2=(total) y1=(y) y2=(y) {}
                        }
                    }
                    span .edge.dim aria-hidden="true" { "0" }
                    span .edge.begin.dim aria-hidden="true" { (self.edges[0]) }
                    span .edge.end.dim aria-hidden="true" { (self.edges[1]) }
                }
            }
        }
    }
}
