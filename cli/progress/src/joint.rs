//! Several builds of one command: the lines of all of them, each with its project, and one table at the end.
//!
//! Invariant: whatever one build shows is shown whole before another one's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_proto::transfer::Moved;
use kiln_proto::v1;
use serde_json::{Value, json};

use super::plain::started_words;
use super::waiting::waiting_words;
use super::{Board, Happening, Progress, Show, Work, json as objects, show, status_word, summary};
use kiln_terminal::{Look, Table, duration, fixed, flexible, harmless, paint, say, size};

/// The display of several builds.
pub struct Joint {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    show: Box<dyn Show>,
    /// Whether the display is for programs.
    objects: bool,
    began: Instant,
    projects: Vec<(String, Project)>,
    /// What was uploaded for all of them.
    moved: Moved,
}

/// What is known of one project.
#[derive(Debug, Default)]
struct Project {
    build: String,
    status: Option<&'static str>,
    artifacts: Vec<v1::Artifact>,
    time: Option<Duration>,
    message: String,
}

impl Joint {
    /// A display for a command that began at this time. A live line for each step of several builds would leave no room, so it is lines on a
    /// terminal too.
    pub fn new(progress: Progress, began: Instant) -> Self {
        let objects = progress == Progress::Json;
        let progress = if objects { progress } else { Progress::Plain };
        let shared =
            Shared { show: show(progress, began), objects, began, projects: Vec::new(), moved: Moved::default() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The display of one project's build.
    pub fn part(&self, project: &str) -> Part {
        self.lock().of(project);
        Part { project: project.to_owned(), shared: Arc::clone(&self.shared) }
    }

    /// Says that a project was not built: `failed` or `skipped`, and why.
    pub fn ended(&self, project: &str, status: &'static str, message: &str) {
        let mut shared = self.lock();
        let of = shared.of(project);
        if of.status.is_some_and(|status| status != "success") {
            return;
        }
        (of.status, of.message) = (Some(status), message.to_owned());
        if !message.is_empty() {
            shared.show.note(&format!("{project}: {message}"));
        }
    }

    /// Adds what was uploaded for all projects at once.
    pub fn sent(&self, moved: Moved) {
        self.lock().moved += moved;
    }

    /// The builds that have started and not ended.
    pub fn running(&self) -> Vec<String> {
        let shared = self.lock();
        let open = shared.projects.iter().filter(|(_, of)| of.status.is_none() && !of.build.is_empty());
        open.map(|(_, of)| of.build.clone()).collect()
    }

    /// Shows what became of all of them. Only standard output can cause an error.
    pub fn finish(&self) -> std::io::Result<()> {
        let shared = self.lock();
        let count = |status: &str| shared.projects.iter().filter(|(_, of)| of.status == Some(status)).count();
        if shared.objects {
            let whole = shared.projects.iter().all(|(_, of)| matches!(of.status, Some("success" | "skipped")));
            return objects::write(
                json!({
                    "type": "builds_finished",
                    "status": if whole { "success" } else { "failed" },
                    "elapsed_ms": u64::try_from(shared.began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "bytes_uploaded": shared.moved.bytes,
                    "bytes_reused": shared.moved.reused_bytes,
                    "projects": shared.projects.iter().map(object).collect::<Vec<_>>(),
                }),
                None,
            );
        }
        let columns = [flexible("project"), fixed("status"), flexible("artifact"), fixed("digest"), fixed("time")];
        let rows = shared.projects.iter().flat_map(|(name, of)| rows(name, of));
        let kinds = ["success", "failed", "farm_failed", "cancelled", "skipped"].into_iter();
        let counts = kinds.filter(|kind| count(kind) > 0).map(|kind| {
            let look = if matches!(kind, "success" | "skipped") { Look::Good } else { Look::Bad };
            paint(
                look,
                &format!("{} {}", count(kind), if kind == "farm_failed" { "infrastructure error" } else { kind }),
            )
        });
        let counts = counts.collect::<Vec<_>>().join(", ");
        let projects = kiln_terminal::count(shared.projects.len(), "project");
        say(&format!(
            "\n{}{projects}: {counts} in {}; sent {}, reused {}",
            Table::new(&columns).with(rows).for_stderr(),
            duration(shared.began.elapsed()),
            size(shared.moved.bytes),
            size(shared.moved.reused_bytes),
        ));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn of(&mut self, project: &str) -> &mut Project {
        let at = match self.projects.iter().position(|(name, _)| name == project) {
            Some(at) => at,
            None => {
                self.projects.push((project.to_owned(), Project::default()));
                self.projects.len() - 1
            }
        };
        &mut self.projects[at].1
    }
}

fn rows(name: &str, of: &Project) -> Vec<Vec<String>> {
    let status = of.status.unwrap_or("unknown");
    let time = of.time.map_or_else(|| "-".to_owned(), duration);
    let row = |artifact: &str, digest: &str| {
        vec![harmless(name), status.to_owned(), harmless(artifact), digest.to_owned(), time.clone()]
    };
    if of.artifacts.is_empty() {
        return vec![row("-", "-")];
    }
    let digest = |artifact: &v1::Artifact| {
        let hash = artifact.digest.as_ref().map(|digest| digest.hash.as_str()).unwrap_or("-");
        hash.chars().take(12).collect::<String>()
    };
    of.artifacts.iter().map(|artifact| row(&artifact.id, &digest(artifact))).collect()
}

fn object((name, of): &(String, Project)) -> Value {
    let artifact = |artifact: &v1::Artifact| {
        json!({
            "name": artifact.name,
            "id": artifact.id,
            "platform": artifact.platform,
            "digest": artifact.digest.as_ref().map(|digest| &digest.hash),
        })
    };
    json!({
        "directory": name,
        "status": of.status.unwrap_or("unknown"),
        "build": of.build,
        "duration_ms": of.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        "message": of.message,
        "artifacts": of.artifacts.iter().map(artifact).collect::<Vec<_>>(),
    })
}

/// The display of one of several builds.
pub struct Part {
    project: String,
    shared: Arc<Mutex<Shared>>,
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Show for Part {
    fn project(&self) -> &str {
        &self.project
    }

    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        let mut shared = self.lock();
        let of = shared.of(&self.project);
        match happening {
            Happening::Started(started) => of.build.clone_from(&started.build),
            Happening::Artifact { artifact, .. } => of.artifacts.push((**artifact).clone()),
            Happening::Finished { finished, .. } => {
                of.status = Some(status_word(finished.status()));
                of.time = board.elapsed().or(Some(Duration::from_millis(finished.duration_ms)));
                of.message.clone_from(&finished.message);
            }
            _ => {}
        }
        if shared.objects {
            return shared.show.happening(board, happening);
        }
        match happening {
            Happening::Started(started) => shared.show.note(&format!("{}: {}", self.project, started_words(started))),
            Happening::Warning(text) => {
                let text = format!("{}: {text}", self.project);
                return shared.show.happening(board, &Happening::Warning(text));
            }
            Happening::Waiting(waiting) => {
                if let Some(words) = waiting_words(board, waiting) {
                    shared.show.note(&format!("{}: {words}", self.project));
                }
            }
            // What succeeded is in the table.
            Happening::Finished { finished, .. } if finished.status() == v1::Status::Succeeded => {
                shared.show.note(&format!("{}: success", self.project));
            }
            Happening::Finished { finished, moved } => {
                let words = summary(board, finished, moved);
                say(&format!("{}:{}", paint(Look::Name, &harmless(&self.project)), words.trim_end_matches('\n')));
            }
            happening => return shared.show.happening(board, happening),
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        self.lock().show.note(&format!("{}: {text}", self.project));
    }

    fn work(&mut self, work: Option<&Work>) {
        self.lock().show.work(work);
    }

    fn tick(&mut self, board: &Board) {
        self.lock().show.tick(board);
    }
}
