//! Compares two runs, case by case.

use super::document::{Case, Document};

/// A figure in both runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pair(pub Option<f64>, pub Option<f64>);

impl Pair {
    /// The second relative to the first, if both are known.
    pub fn ratio(&self) -> Option<f64> {
        match (self.0, self.1) {
            (Some(first), Some(second)) if first > 0.0 => Some(second / first),
            _ => None,
        }
    }
}

/// A case in either run or both.
#[derive(Debug)]
pub struct Row {
    /// The case.
    pub name: String,
    /// Operations per second.
    pub rate: Pair,
    /// Median, in milliseconds.
    pub p50: Pair,
    /// 99th percentile, in milliseconds.
    pub p99: Pair,
    /// The server's peak resident memory.
    pub peak: Pair,
    /// The server's CPU time per operation.
    pub cpu: Pair,
}

/// Compares two runs; cases are in the order of the first, followed by those only in the second.
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

/// Differences that make the runs hard to compare.
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
