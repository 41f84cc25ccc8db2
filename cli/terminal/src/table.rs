//! Tables that adapt to their width.
//!
//! On a terminal, a table fits its width: long cells are truncated, then the least important columns are omitted. In a
//! pipe, everything is shown.

use console::{Term, measure_text_width, truncate_str};

use super::harmless;

/// Spaces between two columns.
const GAP: usize = 2;
/// Cells are not truncated below this width while there is a column that can be omitted instead.
const READABLE: usize = 12;
/// Cells are never truncated below this width.
const LEAST: usize = 4;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    /// Whether its cells may be truncated.
    flexible: bool,
    /// Whether it may be omitted (0: never); higher ranks are omitted first.
    optional: u8,
}

/// A column that is always shown completely.
pub const fn fixed(title: &'static str) -> Column {
    Column { title, flexible: false, optional: 0 }
}

/// A column whose cells may be truncated.
pub const fn flexible(title: &'static str) -> Column {
    Column { title, flexible: true, optional: 0 }
}

impl Column {
    /// Allows the column to be omitted if there is no space; higher ranks are omitted first.
    #[must_use]
    pub const fn optional(self, rank: u8) -> Self {
        Self { optional: rank, ..self }
    }
}

/// Rows with aligned columns.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and their titles.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds these rows.
    #[must_use]
    pub fn with(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// The table for standard output.
    pub fn for_stdout(&self) -> String {
        self.render(width(&Term::stdout()))
    }

    /// The table for standard error.
    pub fn for_stderr(&self) -> String {
        self.render(width(&Term::stderr()))
    }

    /// The table in at most `width` columns of a terminal, without trailing spaces.
    pub fn render(&self, width: Option<usize>) -> String {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let widths = loop {
            match self.fit(&shown, width) {
                Some(widths) => break widths,
                None => match self.least_important(&shown) {
                    Some(index) => shown.retain(|column| *column != index),
                    None => break self.squeeze(&shown, width.unwrap_or(usize::MAX), LEAST),
                },
            }
        };
        let head: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (column, width) in shown.iter().zip(&widths) {
                let cell = harmless(row.get(*column).map_or("", String::as_str)).replace('\n', " ");
                let cell = truncate_str(&cell, *width, "…");
                let pad = width.saturating_sub(measure_text_width(&cell)) + GAP;
                line.push_str(&cell);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The widths of these columns, if they fit without truncating cells to an unreadable width.
    fn fit(&self, shown: &[usize], width: Option<usize>) -> Option<Vec<usize>> {
        let natural = self.natural(shown);
        let Some(width) = width else { return Some(natural) };
        let squeezed = self.squeeze(shown, width, READABLE);
        (total(&squeezed) <= width).then_some(squeezed)
    }

    fn natural(&self, shown: &[usize]) -> Vec<usize> {
        let cell = |row: &Vec<String>, column: usize| measure_text_width(row.get(column).map_or("", String::as_str));
        shown
            .iter()
            .map(|column| {
                let cells = self.rows.iter().map(|row| cell(row, *column)).max().unwrap_or(0);
                cells.max(measure_text_width(self.columns[*column].title))
            })
            .collect()
    }

    /// Narrows the widest flexible columns until all fit, or none is wider than `least`.
    fn squeeze(&self, shown: &[usize], width: usize, least: usize) -> Vec<usize> {
        let mut widths = self.natural(shown);
        while total(&widths) > width {
            let cut = (0..widths.len()).filter(|at| self.columns[shown[*at]].flexible && widths[*at] > least);
            match cut.max_by_key(|at| widths[*at]) {
                Some(at) => widths[at] -= 1,
                None => break,
            }
        }
        widths
    }

    fn least_important(&self, shown: &[usize]) -> Option<usize> {
        let optional = shown.iter().copied().filter(|column| self.columns[*column].optional > 0);
        optional.max_by_key(|column| self.columns[*column].optional)
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// The width of standard output, if it has one.
pub fn stdout_width() -> Option<usize> {
    width(&Term::stdout())
}

/// The width of a terminal; otherwise the value of `COLUMNS`, which is rarely exported by accident.
fn width(term: &Term) -> Option<usize> {
    if let Some((_, columns)) = term.size_checked().filter(|_| term.is_term()) {
        return Some(usize::from(columns)).filter(|columns| *columns > 0);
    }
    std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builds() -> Table {
        let columns = [
            fixed("build"),
            flexible("project"),
            flexible("version").optional(1),
            fixed("status"),
            fixed("by").optional(2),
        ];
        let row = |cells: [&str; 5]| cells.map(String::from).to_vec();
        Table::new(&columns).with([
            row(["0190a1b2c3d4", "payments-gateway-service", "v1.4.2-12-gabcdef0", "success", "somebody"]),
            row(["0190a1b2c3d5", "shop", "1.0", "failed", "ada"]),
        ])
    }

    #[test]
    fn a_pipe_gets_every_column_whole() {
        insta::assert_snapshot!(builds().render(None), @r"
        build         project                   version             status   by
        0190a1b2c3d4  payments-gateway-service  v1.4.2-12-gabcdef0  success  somebody
        0190a1b2c3d5  shop                      1.0                 failed   ada
        ");
    }

    #[test]
    fn a_narrow_terminal_gets_cut_cells_and_then_fewer_columns() {
        insta::assert_snapshot!(builds().render(Some(60)), @r"
        build         project        version       status   by
        0190a1b2c3d4  payments-gat…  v1.4.2-12-g…  success  somebody
        0190a1b2c3d5  shop           1.0           failed   ada
        ");
        insta::assert_snapshot!(builds().render(Some(40)), @r"
        build         project            status
        0190a1b2c3d4  payments-gateway…  success
        0190a1b2c3d5  shop               failed
        ");
        for width in 30..100 {
            let table = builds().render(Some(width));
            assert!(table.lines().all(|line| measure_text_width(line) <= width), "expected {width} columns:\n{table}");
        }
    }
}
