//! What a step's run used over time, as drawings.

use kiln_proto::v1::{Usage, UsageOverTime};
use maud::{Markup, html};

use crate::drawing::{Drawing, Span};
use crate::words;

/// CPUs and memory of a run; nothing if its worker has not measured them.
pub fn section(usage: &Usage) -> Markup {
    let Some(over_time) = usage.over_time.as_ref().filter(|over_time| is_sound(over_time)) else { return html! {} };
    let cpus: Vec<u64> = over_time.milli_cpus.iter().map(|milli| u64::from(*milli)).collect();
    let ran_ms = u64::from(over_time.until_ms.last().copied().unwrap_or(0));
    let average = (usage.cpu_ms * 1000).checked_div(ran_ms).unwrap_or(0);
    let reserved = u64::from(usage.reserved_milli_cpus);
    let cpu = Quantity {
        id: "usage-cpu",
        title: "CPU",
        summary: format!("{} on average, {} reserved", words::cpus(average), words::cpus(reserved)),
        limit: reserved,
        words: words::cpus,
    };
    let memory = Quantity {
        id: "usage-memory",
        title: "Memory",
        summary: format!(
            "{} at most, {} allowed",
            words::size(usage.peak_memory_bytes),
            words::size(usage.memory_limit_bytes)
        ),
        limit: usage.memory_limit_bytes,
        words: words::size,
    };
    let (cpu, memory) =
        (cpu.over(&over_time.until_ms, &cpus), memory.over(&over_time.until_ms, &over_time.memory_bytes));
    html! {
        section #usage aria-labelledby="usage-title" {
            h2 #usage-title { "Over time" }
            div .drawings { (cpu.draw()) (memory.draw()) }
        }
    }
}

/// Whether the lists belong together: they come from a worker.
pub fn is_sound(over_time: &UsageOverTime) -> bool {
    let number = over_time.until_ms.len();
    number > 0
        && over_time.milli_cpus.len() == number
        && over_time.memory_bytes.len() == number
        && over_time.until_ms.is_sorted()
}

/// What is drawn, and of how much.
struct Quantity {
    id: &'static str,
    title: &'static str,
    summary: String,
    /// What it was allowed; 0: unknown.
    limit: u64,
    words: fn(u64) -> String,
}

impl Quantity {
    fn over(self, until_ms: &[u32], values: &[u64]) -> Drawing {
        let begins = std::iter::once(0).chain(until_ms.iter().copied());
        let span = |((begin, end), value): ((u32, &u32), &u64)| Span {
            begin: begin.into(),
            end: (*end).into(),
            value: *value,
            title: format!(
                "{} – {}: {}",
                words::duration(begin.into()),
                words::duration((*end).into()),
                (self.words)(*value)
            ),
        };
        let most = values.iter().copied().max().unwrap_or(0);
        // The limit is in the picture unless it is so far away that nothing else would be seen.
        let is_near = self.limit > 0 && self.limit <= most.saturating_mul(4);
        let top = if is_near { most.max(self.limit) } else { most.saturating_add(most / 10) };
        let total = until_ms.last().copied().unwrap_or(0);
        Drawing {
            id: self.id,
            title: self.title,
            summary: self.summary,
            spans: begins.zip(until_ms).zip(values).map(span).collect(),
            top,
            top_words: (self.words)(top),
            edges: [String::new(), words::duration(total.into())],
            limit: is_near.then_some(self.limit),
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
