//! Two runs, case by case.

use super::document::{Case, Document};

/// A figure of either run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pair(pub Option<f64>, pub Option<f64>);

impl Pair {
    /// The second by the first, where both are known.
    pub fn ratio(&self) -> Option<f64> {
        match (self.0, self.1) {
            (Some(first), Some(second)) if first > 0.0 => Some(second / first),
            _ => None,
        }
    }
}

/// A case of either run, or of both.
#[derive(Debug)]
pub struct Row {
    /// The case.
    pub name: String,
    /// Operations a second.
    pub rate: Pair,
    /// Median, in milliseconds.
    pub p50: Pair,
    /// In milliseconds.
    pub p99: Pair,
    /// The server's highest resident memory.
    pub peak: Pair,
    /// The server's CPU time for an operation.
    pub cpu: Pair,
}

/// Compares two runs; cases stand in the first one's order, those of the second alone after them.
pub fn rows(first: &Document, second: &Document) -> Vec<Row> {
    let find = |document: &Document, name: &str| -> Option<Case> {
        document.cases.iter().find(|case| case.name == name && case.operations > 0).cloned()
    };
    let more = second.cases.iter().filter(|case| first.cases.iter().all(|other| other.name != case.name));
    let names = first.cases.iter().chain(more).map(|case| case.name.clone());
    names
        .map(|name| {
            let (one, other) = (find(first, &name), find(second, &name));
            let pair =
                |figure: fn(&Case) -> Option<f64>| Pair(one.as_ref().and_then(figure), other.as_ref().and_then(figure));
            Row {
                rate: pair(|case| Some(case.operations_per_second)),
                p50: pair(|case| Some(case.p50_ms)),
                p99: pair(|case| Some(case.p99_ms)),
                peak: pair(|case| case.server_peak_bytes.map(|bytes| bytes as f64)),
                cpu: pair(|case| case.server_cpu_seconds.map(|seconds| seconds / case.operations as f64)),
                name,
            }
        })
        .collect()
}

/// What makes the runs hard to compare, in words.
pub fn differences(first: &Document, second: &Document) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, one: String, other: String| {
        if one != other {
            found.push(format!("{what} differs: A `{one}`, B `{other}`"));
        }
    };
    let (one, other) = (&first.machine, &second.machine);
    differ("the processor", one.cpu_model.clone(), other.cpu_model.clone());
    differ("the number of cores", one.cores.to_string(), other.cores.to_string());
    differ("the kernel", one.kernel.clone(), other.kernel.clone());
    for case in &first.cases {
        if let Some(same) = second.cases.iter().find(|other| other.name == case.name) {
            let what = format!("the concurrency of {}", case.name);
            differ(&what, case.concurrency.to_string(), same.concurrency.to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::document::Machine;
    use super::*;

    fn document(cores: usize, cases: &[(&str, f64)]) -> Document {
        let case = |(name, rate): &(&str, f64)| {
            let mut case = Case::new(name, 8, "");
            (case.operations, case.operations_per_second) = (1, *rate);
            case
        };
        let mut machine = Machine::here();
        machine.cores = cores;
        Document { machine, target: String::new(), seed: 0, cases: cases.iter().map(case).collect() }
    }

    #[test]
    fn cases_of_both_runs_have_a_ratio_and_the_others_have_none() {
        let (one, other) = (document(2, &[("a", 10.0), ("b", 1.0)]), document(4, &[("c", 3.0), ("a", 25.0)]));
        let rows = rows(&one, &other);
        let ratios: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.rate.ratio())).collect();
        assert_eq!(ratios, [("a", Some(2.5)), ("b", None), ("c", None)]);
        assert_eq!(differences(&one, &other), ["the number of cores differs: A `2`, B `4`"]);
    }
}
