//! What a step's run used over time, as drawings.

use kiln_proto::v1::{Usage, UsageOverTime};
use maud::{Markup, html};

use crate::markup::words;

/// Height of a drawing, in its own units; its width is the run's milliseconds.
const HEIGHT: u64 = 1_000;

/// One quantity over time.
struct Drawing<'a> {
    id: &'static str,
    title: &'static str,
    /// In a sentence: the most, and of how much.
    summary: String,
    until_ms: &'a [u32],
    values: Vec<u64>,
    /// What it was allowed; 0: unknown.
    limit: u64,
    words: fn(u64) -> String,
}

/// CPUs and memory of a run; nothing if its worker has not measured them.
pub(super) fn section(usage: &Usage) -> Markup {
    let Some(over_time) = usage.over_time.as_ref().filter(|over_time| is_sound(over_time)) else { return html! {} };
    let cpus: Vec<u64> = over_time.milli_cpus.iter().map(|milli| u64::from(*milli)).collect();
    let ran_ms = u64::from(over_time.until_ms.last().copied().unwrap_or(0));
    let average = (usage.cpu_ms * 1000).checked_div(ran_ms).unwrap_or(0);
    let reserved = u64::from(usage.reserved_milli_cpus);
    let cpu = Drawing {
        id: "cpu",
        title: "CPU",
        summary: format!("{} on average, {} reserved", words::cpus(average), words::cpus(reserved)),
        until_ms: &over_time.until_ms,
        values: cpus,
        limit: reserved,
        words: words::cpus,
    };
    let memory = Drawing {
        id: "memory",
        title: "Memory",
        summary: format!(
            "{} at most, {} allowed",
            words::size(usage.peak_memory_bytes),
            words::size(usage.memory_limit_bytes)
        ),
        until_ms: &over_time.until_ms,
        values: over_time.memory_bytes.clone(),
        limit: usage.memory_limit_bytes,
        words: words::size,
    };
    html! {
        section #usage aria-labelledby="usage-title" {
            h2 #usage-title { "Over time" }
            div .drawings { (cpu.draw()) (memory.draw()) }
        }
    }
}

/// Whether the lists belong together: they come from a worker.
pub(crate) fn is_sound(over_time: &UsageOverTime) -> bool {
    let number = over_time.until_ms.len();
    number > 0
        && over_time.milli_cpus.len() == number
        && over_time.memory_bytes.len() == number
        && over_time.until_ms.is_sorted()
}

impl Drawing<'_> {
    /// The value at its upper edge.
    fn top(&self) -> u64 {
        let most = self.values.iter().copied().max().unwrap_or(0);
        // The limit is in the picture unless it is so far away that nothing else would be seen.
        if self.limit <= most.saturating_mul(4) { most.max(self.limit) } else { most.saturating_add(most / 10) }.max(1)
    }

    fn draw(&self) -> Markup {
        let (top, total) = (self.top(), self.until_ms.last().copied().unwrap_or(0).max(1));
        let height = |value: u64| {
            u64::try_from(u128::from(value.min(top)) * u128::from(HEIGHT) / u128::from(top)).unwrap_or(HEIGHT)
        };
        let begins = std::iter::once(0).chain(self.until_ms.iter().copied());
        html! {
            figure id={ "usage-" (self.id) } {
                figcaption { strong { (self.title) } " " span .dim { (self.summary) } }
                div .plot {
                    span .edge.dim aria-hidden="true" { ((self.words)(top)) }
                    svg viewBox={ "0 0 " (total) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (self.title) ": " (self.summary) } {
                        @for ((begin, end), value) in begins.zip(self.until_ms).zip(&self.values) {
                            g {
                                title { (words::duration(begin.into())) " – " (words::duration((*end).into())) ": " ((self.words)(*value)) }
                                // All of the span's height answers to the pointer.
                                rect .under x=(begin) y="0" width=(end - begin) height=(HEIGHT) {}
                                rect .value x=(begin) y=(HEIGHT - height(*value)) width=(end - begin) height=(height(*value)) {}
                            }
                        }
                        @if self.limit > 0 && self.limit <= top {
                            @let y = HEIGHT - height(self.limit);
                            line .limit x1="0" x2=(total) y1=(y) y2=(y) {}
                        }
                    }
                    span .edge.dim aria-hidden="true" { "0" }
                    span .edge.end.dim aria-hidden="true" { (words::duration(total.into())) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(over_time: UsageOverTime) -> Usage {
        Usage {
            cpu_ms: 3_000,
            memory_limit_bytes: 2 << 30,
            reserved_milli_cpus: 1_000,
            over_time: Some(over_time),
            ..Usage::default()
        }
    }

    #[test]
    fn each_span_is_drawn_below_the_most_and_the_limit_where_it_is_near() {
        let page = section(&usage(UsageOverTime {
            until_ms: vec![1_000, 3_000],
            milli_cpus: vec![2_000, 500],
            memory_bytes: vec![1 << 20, 3 << 20],
        }));
        let page = page.into_string();
        assert!(page.contains("1.0 s – 3.0 s: 0.5 CPUs"), "{page}");
        assert!(page.contains("<rect class=\"value\" x=\"1000\" y=\"750\" width=\"2000\" height=\"250\">"), "{page}");
        assert_eq!(page.matches("class=\"limit\"").count(), 1, "expected the CPUs, and not 2 GiB over 3 MiB: {page}");
    }

    #[test]
    fn lists_that_do_not_belong_together_are_not_drawn() {
        for (until_ms, milli_cpus, memory_bytes) in
            [(vec![], vec![], vec![]), (vec![1_000], vec![], vec![1]), (vec![2_000, 1_000], vec![1, 1], vec![1, 1])]
        {
            let page = section(&usage(UsageOverTime { until_ms, milli_cpus, memory_bytes })).into_string();
            assert_eq!(page, "");
        }
        let most = UsageOverTime {
            until_ms: vec![0, u32::MAX],
            milli_cpus: vec![u32::MAX; 2],
            memory_bytes: vec![u64::MAX, 0],
        };
        assert!(section(&usage(most)).into_string().contains("viewBox"));
    }
}
