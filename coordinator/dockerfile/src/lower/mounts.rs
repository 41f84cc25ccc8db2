//! The mounts of a `RUN`.

use super::command::RunMount;
use super::stage::{Lowering, Place, absolute};
use super::state::State;
use crate::error::{Problem, shown};
use crate::golang;
use crate::instruction::{Mount, MountKind, read_mount};
use crate::options::Context;
use crate::source::{Span, Word};

impl Lowering<'_> {
    /// The mounts, and the variables that have the values of secrets.
    pub(super) fn mounts(
        &mut self,
        state: &State,
        place: &Place<'_>,
        words: &[Word],
    ) -> Result<(Vec<RunMount>, Vec<String>), Problem> {
        let mut mounts = Vec::new();
        let mut secrets = Vec::new();
        let mut agents = 0_u32;
        for (at, word) in words.iter().enumerate() {
            let mount =
                read_mount(word, |value| self.text(state, place, &Word { value: value.to_owned(), span: word.span }))?;
            let source = place.sources.get(at).copied().flatten();
            mounts.push(match mount.kind {
                MountKind::Bind => self.bind(state, place, mount, source, word.span)?,
                MountKind::Cache => self.cache(state, place, mount, source, word.span)?,
                MountKind::Tmpfs => RunMount::Tmpfs { target: target(state, &mount, word.span)?, size: mount.size },
                MountKind::Secret => {
                    secrets.extend(mount.env.clone());
                    secret(state, mount, word.span)?
                }
                MountKind::Ssh => {
                    let socket = format!("/run/buildkit/ssh_agent.{agents}");
                    agents = agents.saturating_add(1);
                    RunMount::Ssh {
                        target: if mount.target.is_empty() { socket } else { target(state, &mount, word.span)? },
                        required: mount.required,
                        owner: owner(&mount, 0o600),
                        id: mount.id.unwrap_or_else(|| "default".to_owned()),
                    }
                }
            });
        }
        Ok((mounts, secrets))
    }

    fn bind(
        &mut self,
        state: &State,
        place: &Place<'_>,
        mount: Mount,
        source: Option<usize>,
        span: Span,
    ) -> Result<RunMount, Problem> {
        let target = target(state, &mount, span)?;
        let path = golang::clean(&format!("/{}", mount.source));
        let (from, context) = match source {
            None => (self.context(Context::Main, place.instruction.span), Some(Context::Main)),
            Some(source) => self.files(source, place)?,
        };
        if let Some(context) = context {
            self.read(&context, &path);
        }
        Ok(RunMount::Bind { from, source: path, target, read_only: mount.read_only })
    }

    fn cache(
        &mut self,
        state: &State,
        place: &Place<'_>,
        mount: Mount,
        source: Option<usize>,
        span: Span,
    ) -> Result<RunMount, Problem> {
        let path = golang::clean(&format!("/{}", mount.source));
        let seed = match source {
            None => None,
            Some(source) => {
                let (from, context) = self.files(source, place)?;
                if let Some(context) = context {
                    self.read(&context, &path);
                }
                Some((from, path.clone()))
            }
        };
        let has_owner = mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some();
        let id = mount.id.clone().unwrap_or_else(|| golang::clean(&mount.target));
        Ok(RunMount::Cache {
            id: format!("{}/{id}", self.options.cache_namespace()),
            sharing: mount.sharing.unwrap_or_default(),
            seed,
            target: target(state, &mount, span)?,
            read_only: mount.read_only,
            owner: (has_owner && path == "/").then(|| owner(&mount, 0o755)),
        })
    }
}

fn secret(state: &State, mount: Mount, span: Span) -> Result<RunMount, Problem> {
    let id = match (mount.source.as_str(), &mount.id) {
        ("", Some(id)) => id.clone(),
        ("", None) => golang::base(&mount.target).to_owned(),
        (source, _) => source.to_owned(),
    };
    let path = match (mount.target.is_empty(), &mount.env) {
        (false, _) => Some(target(state, &mount, span)?),
        (true, Some(_)) => None,
        (true, None) => Some(format!("/run/secrets/{}", golang::base(&id))),
    };
    let owner = owner(&mount, 0o400);
    Ok(RunMount::Secret { id, target: path, env: mount.env, required: mount.required, key: mount.key, owner })
}

fn owner(mount: &Mount, mode: u32) -> (u32, u32, u32) {
    (mount.mode.unwrap_or(mode), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0))
}

/// Where a mount is: from the directory on. The whole root cannot be covered.
fn target(state: &State, mount: &Mount, span: Span) -> Result<String, Problem> {
    let target = golang::clean(&absolute(&state.cwd, &mount.target));
    if target == "/" {
        let problem = Problem::new(span, format!("a mount cannot have the target {}", shown(&mount.target)));
        return Err(problem.help("write `target=` and a directory below `/`"));
    }
    Ok(target)
}
