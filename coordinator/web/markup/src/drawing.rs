//! A quantity over time, drawn as one area for each span, without a script.

use maud::{Markup, html};

/// Height of a drawing, in its own units.
const HEIGHT: u64 = 1_000;

/// A span of time with its value.
#[derive(Debug)]
pub struct Span {
    /// Where it begins, in any unit from 0.
    pub begin: u64,
    /// Where it ends, in the same unit.
    pub end: u64,
    /// How much there is in this span.
    pub value: u64,
    /// What it says when one points at it.
    pub title: String,
}

/// One quantity over time.
#[derive(Debug)]
pub struct Drawing {
    /// The element's id.
    pub id: &'static str,
    /// What is drawn.
    pub title: &'static str,
    /// In a sentence, also for those who do not see it.
    pub summary: String,
    /// One after the other.
    pub spans: Vec<Span>,
    /// The value at the upper edge.
    pub top: u64,
    /// What that value is called.
    pub top_words: String,
    /// The time at the left and the right edge.
    pub edges: [String; 2],
    /// What is allowed, if it is in the picture.
    pub limit: Option<u64>,
}

impl Drawing {
    /// The picture, with its edges and its summary.
    pub fn draw(&self) -> Markup {
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
