//! The graph of a build's steps as SVG.

use kiln_proto::v1;
use maud::{Markup, html};

use crate::live::{Changes, Patch};
use crate::markup::encoded;
use kiln_web_model::graph::{Graph, Node};
use kiln_web_model::{Outcome, Progress};

/// More nodes than these are drawn without names.
const NAMED: usize = 120;
/// Characters of a name.
const NAME: usize = 20;

/// Sizes in the picture's own units.
struct Sizes {
    column: usize,
    row: usize,
    width: usize,
    height: usize,
}

const LARGE: Sizes = Sizes { column: 208, row: 38, width: 168, height: 28 };
const SMALL: Sizes = Sizes { column: 44, row: 14, width: 12, height: 10 };

/// What the colours mean.
pub(super) fn legend() -> Markup {
    let outcomes = [
        Outcome::Hit,
        Outcome::CutOff,
        Outcome::Ran,
        Outcome::Merged,
        Outcome::Failed,
        Outcome::Running,
        Outcome::Waiting,
    ];
    html! {
        ul .legend {
            @for outcome in outcomes { li class=(outcome.word()) { (outcome.word().replace('-', " ")) } }
            li .critical { "critical path" }
        }
    }
}

fn class(node: &Node) -> String {
    let critical = if node.is_critical { " critical" } else { "" };
    format!("node {}{critical}", node.outcome.word())
}

pub(super) fn graph(build: &v1::Build, progress: &Progress, graph: &Graph) -> Markup {
    let is_named = graph.nodes.len() <= NAMED;
    let sizes = if is_named { LARGE } else { SMALL };
    let (width, height) = (graph.columns * sizes.column + 8, graph.rows * sizes.row + 8);
    html! {
        div #graph .graph tabindex="0" role="group" aria-label="Graph of the steps" {
            svg width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } {
                @for (number, node) in graph.nodes.iter().enumerate() {
                    @for need in &node.needs {
                        @let on_path = node.is_critical && graph.nodes[*need].is_critical;
                        @if is_named || on_path { (edge(&sizes, &graph.nodes[*need], node, on_path, number)) }
                    }
                }
                @for (number, node) in graph.nodes.iter().enumerate() { (drawn(build, progress, &sizes, is_named, number, node)) }
            }
        }
    }
}

fn corner(sizes: &Sizes, node: &Node) -> (usize, usize) {
    (4 + node.column * sizes.column, 4 + node.row * sizes.row)
}

fn edge(sizes: &Sizes, from: &Node, to: &Node, on_path: bool, _number: usize) -> Markup {
    let ((x, y), (to_x, to_y)) = (corner(sizes, from), corner(sizes, to));
    let (x, y, to_y) = (x + sizes.width, y + sizes.height / 2, to_y + sizes.height / 2);
    let middle = usize::midpoint(x, to_x);
    let path = format!("M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}");
    html! { path class=(if on_path { "edge critical" } else { "edge" }) d=(path) {} }
}

fn drawn(build: &v1::Build, progress: &Progress, sizes: &Sizes, is_named: bool, number: usize, node: &Node) -> Markup {
    let (x, y) = corner(sizes, node);
    let place = node.places.first().copied().unwrap_or_default();
    let took = node.places.iter().filter_map(|place| progress.steps[*place].took()).max();
    let took = took.map(|took| format!(", {}", crate::markup::words::duration(took))).unwrap_or_default();
    let shards = if node.places.len() > 1 { format!(" ×{}", node.places.len()) } else { String::new() };
    // Of a Dockerfile's instruction, what it says and not its number.
    let label =
        node.name.strip_prefix('[').and_then(|name| name.split_once("] ")).map_or(node.name.as_str(), |(_, name)| name);
    let name: String = label.chars().take(NAME).collect();
    let more = if label.chars().count() > NAME { "…" } else { "" };
    html! {
        a href={ "/builds/" (encoded(&build.id)) "/steps/" (place + 1) } tabindex=[(!is_named).then_some("-1")] {
            g id={ "n" (number) } class=(class(node)) {
                title { (node.name) (shards) ": " (node.outcome.word().replace('-', " ")) (took) }
                rect x=(x) y=(y) width=(sizes.width) height=(sizes.height) rx=(if is_named { 6 } else { 2 }) {}
                @if is_named { text x=(x + 12) y=(y + 18) { (name) (more) (shards) } }
            }
        }
    }
}

/// The classes of the nodes of steps that have changed.
pub(super) fn classes(graph: &Graph, changes: &Changes) -> Vec<Patch> {
    let is_changed = |node: &Node| node.places.iter().any(|place| changes.steps.contains(place));
    let changed = graph.nodes.iter().enumerate().filter(|(_, node)| is_changed(node));
    changed.map(|(number, node)| Patch::Class { id: format!("n{number}"), class: class(node) }).collect()
}
