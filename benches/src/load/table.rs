//! Reports for people: aligned columns, with longer text below.

use std::fmt::Write;

use super::compare::Row;
use super::document::{Case, Document};

/// Aligns rows of equal length; the first column contains names, the others figures.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if column == 0 { write!(line, "{cell:width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cells(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// `-` for an unknown figure.
fn known(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

fn row(case: &Case) -> Vec<String> {
    let mut row = vec![case.name.clone(), case.concurrency.to_string()];
    if case.refused.is_some() {
        row.push("refused".to_owned());
        return row;
    }
    let mib = if case.bytes == 0 { "-".to_owned() } else { number(case.mib_per_second) };
    row.extend([case.operations.to_string(), number(case.seconds), number(case.operations_per_second), mib]);
    row.extend([case.p50_ms, case.p90_ms, case.p99_ms, case.max_ms].map(number));
    row.push(case.failures().to_string());
    let peak = case.server_peak_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    let since = if peak.is_some() && !case.server_peak_is_of_the_case { "*" } else { "" };
    row.push(known(peak) + since);
    row.push(known(case.server_cpu_seconds));
    row.push(known(case.mib_per_server_cpu_second()));
    row
}

/// The report of a run.
pub fn report(document: &Document) -> String {
    let machine = &document.machine;
    let mut text = format!(
        "{} of {} cores, Linux {}, load {} at {}\ntarget {}, seed {}; closed loop: each caller calls again when its call has \
         ended; a warm-up before each case is not counted\n\n",
        machine.cpu_model,
        machine.cores,
        machine.kernel,
        machine.load_average,
        machine.date,
        document.target,
        document.seed,
    );
    let header = ["case", "at once", "ops", "s", "ops/s", "MiB/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "errors"];
    let mut rows = vec![cells(&header)];
    rows[0].extend(cells(&["server MiB", "server CPU s", "MiB/CPU s"]));
    rows.extend(document.cases.iter().map(row));
    text.push_str(&aligned(&rows));
    if document.cases.iter().any(|case| case.server_peak_bytes.is_some() && !case.server_peak_is_of_the_case) {
        text.push_str("* highest since the server began, not in this case alone\n");
    }
    text.push('\n');
    for case in &document.cases {
        if let Some(words) = &case.refused {
            let _ = writeln!(text, "{}: the endpoint refused: {words}", case.name);
        }
        for (code, failure) in &case.errors {
            let _ = writeln!(text, "{}: {} x {code}, the first: {}", case.name, failure.count, failure.first);
        }
    }
    let mut checked: Vec<(&str, Vec<&str>)> = Vec::new();
    for case in document.cases.iter().filter(|case| case.operations > 0) {
        match checked.iter_mut().find(|(words, _)| *words == case.checked) {
            Some((_, names)) => names.push(&case.name),
            None => checked.push((&case.checked, vec![&case.name])),
        }
    }
    for (words, names) in checked {
        let _ = writeln!(text, "checked in {}: {words}", names.join(", "));
    }
    text
}

/// A comparison of two runs.
pub fn comparison(rows: &[Row]) -> String {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let header = [
        "case",
        "ops/s A",
        "ops/s B",
        "B/A",
        "p50 ms A",
        "p50 ms B",
        "B/A",
        "p99 B/A",
        "server MiB B/A",
        "CPU s/op B/A",
    ];
    let mut table = vec![cells(&header)];
    table.extend(rows.iter().map(|row| {
        let mut cells = vec![row.name.clone()];
        cells.extend([known(row.rate.0), known(row.rate.1), ratio(row.rate.ratio())]);
        cells.extend([known(row.p50.0), known(row.p50.1), ratio(row.p50.ratio())]);
        cells.extend([ratio(row.p99.ratio()), ratio(row.peak.ratio()), ratio(row.cpu.ratio())]);
        cells
    }));
    aligned(&table)
}
