//! A Dockerfile with what became of each of its instructions: the operations of its stages are counted as their names count them
//! (`[build 2/5] RUN make`).

use std::collections::HashMap;

use kiln_dockerfile::source::Source;
use kiln_dockerfile::text;

use super::Progress;

/// A line of the file, with the places of the steps that ran the instruction that begins on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Without its end.
    pub text: String,
    /// Places in the build; none for most lines.
    pub steps: Vec<usize>,
}

/// Stage, number and keyword of an operation, as its name says.
fn operation(name: &str) -> Option<(String, usize, String)> {
    let (title, rest) = name.strip_prefix('[')?.split_once("] ")?;
    let (stage, numbers) = title.rsplit_once(' ').unwrap_or(("", title));
    // Padding is before a short number, and a platform before the stage.
    let stage = stage.trim().rsplit(' ').next().unwrap_or_default();
    let number = numbers.split('/').next()?.trim().parse().ok()?;
    let keyword = rest.trim_start_matches("ONBUILD ").split_whitespace().next()?.to_ascii_uppercase();
    Some((stage.to_owned(), number, keyword))
}

/// The lines of a Dockerfile, if any of its instructions was a step of this build.
pub fn of(file: &str, progress: &Progress) -> Option<Vec<Line>> {
    let read = text::read(file).ok()?;
    let source = Source::new("Dockerfile", file);
    let mut lines: Vec<Line> = file.lines().map(|text| Line { text: text.to_owned(), steps: Vec::new() }).collect();
    let mut operations: HashMap<(String, usize, String), Vec<usize>> = HashMap::new();
    for (place, step) in progress.steps.iter().enumerate() {
        if let Some(operation) = operation(&step.at.step) {
            operations.entry(operation).or_default().push(place);
        }
    }
    let is_from = |node: &&text::Node| node.keyword.value.eq_ignore_ascii_case("FROM");
    let stages = read.nodes.iter().filter(is_from).count();
    let (mut stage, mut number, mut begun, mut names) = (String::new(), 0, 0, Vec::new());
    for node in &read.nodes {
        let keyword = node.keyword.value.to_ascii_uppercase();
        match keyword.as_str() {
            "FROM" => {
                let words: Vec<&str> = node.line.split_whitespace().collect();
                let name =
                    words.windows(2).find(|pair| pair[0].eq_ignore_ascii_case("AS")).map(|pair| pair[1].to_lowercase());
                // Only an image that is fetched is an operation: not `scratch`, and not a stage before.
                let base = words
                    .iter()
                    .skip(1)
                    .find(|word| !word.starts_with("--"))
                    .map_or(String::new(), |word| word.to_lowercase());
                number = usize::from(base != "scratch" && !names.contains(&base));
                stage = name.unwrap_or_else(|| if stages == 1 { String::new() } else { format!("stage-{begun}") });
                names.push(stage.clone());
                begun += 1;
            }
            "RUN" | "COPY" | "ADD" | "WORKDIR" => number += 1,
            _ => continue,
        }
        let Some(places) = operations.get(&(stage.clone(), number, keyword)) else { continue };
        if let Some(line) = source.line(node.span.start).checked_sub(1).and_then(|at| lines.get_mut(at)) {
            line.steps.extend(places);
        }
    }
    lines.iter().any(|line| !line.steps.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Told, told};
    use super::*;

    #[test]
    fn an_operation_is_found_at_its_instruction() {
        let file = "# syntax=docker/dockerfile:1\nFROM debian AS build\nARG X=1\nRUN apt-get update \\\n  && true\nCOPY . .\nRUN make\n\nFROM scratch\nCOPY --from=build /out /\nRUN [\"/out\"]\n";
        let step = |name| Told { name, needs: &[], took: 1, hit: false, ok: true };
        let progress = told(&[
            step("[build 2/4] RUN apt-get update   && true"),
            step("[linux/arm64 build 4/4] RUN make"),
            step("[stage-1 2/2] RUN [\"/out\"]"),
            step("compile"),
        ]);
        let lines = of(file, &progress).unwrap();
        let found: Vec<(usize, usize)> =
            (1..).zip(&lines).flat_map(|(number, line)| line.steps.iter().map(move |step| (number, *step))).collect();
        assert_eq!(found, [(4, 0), (7, 1), (11, 2)]);
    }

    #[test]
    fn a_file_that_is_none_of_the_builds_shows_nothing() {
        let progress = told(&[Told { name: "compile", needs: &[], took: 1, hit: false, ok: true }]);
        assert!(of("FROM a\nRUN b\n", &progress).is_none() && of("\0", &progress).is_none());
    }
}
