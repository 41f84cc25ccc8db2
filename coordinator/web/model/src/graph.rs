//! The graph of a build's steps, laid out in columns: what is needed is to the left. Shards of one step are one node.

use std::collections::HashMap;

use super::{Outcome, Progress};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name of its step.
    pub name: String,
    /// Platform and target.
    pub target: (String, String),
    /// The places of its steps.
    pub places: Vec<usize>,
    /// From the left.
    pub column: usize,
    /// From the top.
    pub row: usize,
    /// Of its steps, the one that says most.
    pub outcome: Outcome,
    /// What it needs, by number.
    pub needs: Vec<usize>,
    /// It is on the critical path.
    pub is_critical: bool,
}

/// A laid out graph.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// In the order of their first steps.
    pub nodes: Vec<Node>,
    /// How many.
    pub columns: usize,
    /// How many.
    pub rows: usize,
}

/// The outcome of a node: the one of its steps that says most.
fn gravest(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let weight = |outcome: &Outcome| match outcome {
        Outcome::Failed => 9,
        Outcome::Running => 8,
        Outcome::Queued => 7,
        Outcome::Waiting => 6,
        Outcome::Ran => 5,
        Outcome::Merged => 4,
        Outcome::CutOff => 3,
        Outcome::Hit => 2,
        Outcome::Skipped => 1,
    };
    outcomes.max_by_key(weight).unwrap_or(Outcome::Waiting)
}

impl Graph {
    /// Lays out the graph of a build's steps.
    pub fn of(progress: &Progress) -> Self {
        let mut graph = Self { nodes: nodes(progress), columns: 0, rows: 0 };
        graph.place();
        for node in critical(progress, &graph.nodes) {
            graph.nodes[node].is_critical = true;
        }
        graph
    }

    fn place(&mut self) {
        let depths = depths(&self.nodes);
        let mut filled: HashMap<usize, usize> = HashMap::new();
        let mut first_row = 0;
        let mut last = None::<(String, String)>;
        for (number, depth) in depths.into_iter().enumerate() {
            let node = &mut self.nodes[number];
            if last.as_ref() != Some(&node.target) {
                // Each target is below the one before.
                first_row = filled.values().copied().max().unwrap_or(0);
                last = Some(node.target.clone());
            }
            let row = filled.entry(depth).or_default();
            *row = (*row).max(first_row);
            (node.column, node.row) = (depth, *row);
            *row += 1;
        }
        self.columns = self.nodes.iter().map(|node| node.column + 1).max().unwrap_or(0);
        self.rows = self.nodes.iter().map(|node| node.row + 1).max().unwrap_or(0);
    }
}

fn nodes(progress: &Progress) -> Vec<Node> {
    let mut numbers: HashMap<(String, (String, String)), usize> = HashMap::new();
    let mut nodes: Vec<Node> = Vec::new();
    let mut order: Vec<usize> = (0..progress.steps.len()).collect();
    let target = |place: &usize| {
        let at = &progress.steps[*place].at;
        (at.platform.clone(), at.target.clone())
    };
    order.sort_by_key(target);
    for place in &order {
        let step = &progress.steps[*place];
        let number = *numbers.entry((step.at.step.clone(), target(place))).or_insert_with(|| {
            nodes.push(Node {
                name: step.at.step.clone(),
                target: target(place),
                places: Vec::new(),
                column: 0,
                row: 0,
                outcome: Outcome::Waiting,
                needs: Vec::new(),
                is_critical: false,
            });
            nodes.len() - 1
        });
        nodes[number].places.push(*place);
    }
    let mut chained = None::<usize>;
    for number in 0..nodes.len() {
        let first = &progress.steps[nodes[number].places[0]];
        let target = nodes[number].target.clone();
        let named = first.needs.iter().filter_map(|need| numbers.get(&(need.clone(), target.clone())).copied());
        nodes[number].needs = named.filter(|need| *need != number).collect();
        if first.is_instruction {
            // The instructions of a Dockerfile follow one another, as far as the events tell.
            let before = chained.filter(|before| nodes[*before].target == target);
            nodes[number].needs.extend(before);
            chained = Some(number);
        }
        nodes[number].outcome =
            gravest(nodes[number].places.iter().map(|place| progress.steps[*place].outcome(progress)));
    }
    nodes
}

/// How many nodes are in the longest chain before each. Nodes in a circle, which no plan has, are at the beginning.
fn depths(nodes: &[Node]) -> Vec<usize> {
    let mut depths = vec![0; nodes.len()];
    let mut open: Vec<usize> = nodes.iter().map(|node| node.needs.len()).collect();
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (number, node) in nodes.iter().enumerate() {
        node.needs.iter().for_each(|need| needed_by[*need].push(number));
    }
    let mut ready: Vec<usize> = (0..nodes.len()).filter(|number| open[*number] == 0).collect();
    while let Some(number) = ready.pop() {
        for next in &needed_by[number] {
            depths[*next] = depths[*next].max(depths[number] + 1);
            open[*next] -= 1;
            if open[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    depths
}

/// The chain that the build's end waited for: from the node that ended last back to what it waited for last.
fn critical(progress: &Progress, nodes: &[Node]) -> Vec<usize> {
    let end = |number: usize| nodes[number].places.iter().filter_map(|place| progress.steps[*place].ended).max();
    let mut path = Vec::new();
    let mut next = (0..nodes.len()).filter(|number| end(*number).is_some()).max_by_key(|number| end(*number));
    while let Some(number) = next.filter(|number| !path.contains(number)) {
        path.push(number);
        next = nodes[number].needs.iter().copied().filter(|need| end(*need).is_some()).max_by_key(|need| end(*need));
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Told, told};
    use super::*;

    #[test]
    fn what_is_needed_is_to_the_left_and_the_slowest_chain_is_critical() {
        let progress = told(&[
            Told { name: "deps", needs: &[], took: 5, hit: true, ok: true },
            Told { name: "lint", needs: &[], took: 2, hit: false, ok: true },
            Told { name: "compile", needs: &["deps"], took: 50, hit: false, ok: true },
            Told { name: "test", needs: &["compile", "lint"], took: 20, hit: false, ok: false },
        ]);
        let graph = Graph::of(&progress);
        let node = |name: &str| graph.nodes.iter().find(|node| node.name == name).unwrap();
        assert_eq!(["deps", "compile", "test", "lint"].map(|name| node(name).column), [0, 1, 2, 0]);
        assert_eq!(["deps", "compile", "test", "lint"].map(|name| node(name).is_critical), [true, true, true, false]);
        assert_eq!((node("deps").outcome, node("test").outcome), (Outcome::Hit, Outcome::Failed));
        assert_eq!((graph.columns, graph.rows), (3, 2));
    }

    #[test]
    fn a_hit_after_a_run_is_an_early_cut_off() {
        let progress = told(&[
            Told { name: "generate", needs: &[], took: 5, hit: false, ok: true },
            Told { name: "compile", needs: &["generate"], took: 1, hit: true, ok: true },
        ]);
        let outcomes: Vec<Outcome> = Graph::of(&progress).nodes.iter().map(|node| node.outcome).collect();
        assert_eq!(outcomes, [Outcome::Ran, Outcome::CutOff]);
    }

    #[test]
    fn a_circle_does_not_hang() {
        let progress = told(&[
            Told { name: "a", needs: &["b"], took: 1, hit: false, ok: true },
            Told { name: "b", needs: &["a"], took: 1, hit: false, ok: true },
        ]);
        assert_eq!(Graph::of(&progress).nodes.len(), 2);
    }
}
