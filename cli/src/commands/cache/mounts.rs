//! `kiln cache list --mounts` and `kiln cache prune --mounts`.

use kiln_proto::v1;
use serde_json::{Value, json};

use super::ago;
use crate::commands::time;
use crate::farm::{Farm, INSTANCE};
use crate::{Code, Error, args, local};
use kiln_terminal::{self as terminal, Table, fixed, flexible};

pub(super) async fn list(farm: &Farm, args: args::Layers) -> Result<Code, Error> {
    let request = v1::ListMountsRequest { instance: INSTANCE.to_owned(), project: args.project.unwrap_or_default() };
    let mounts = farm.call(farm.cache().mounts(request)).await?.into_inner().mounts;
    if args.json {
        return local::print_json(&mounts.iter().map(object).collect());
    }
    if mounts.is_empty() {
        terminal::say(
            "there are no cache mounts; `caches` of a step in kiln.toml makes one, and so does `RUN --mount=type=cache` in a Dockerfile",
        );
        return Ok(Code::Success);
    }
    local::print(table(&mounts).as_bytes())
}

pub(super) async fn prune(farm: &Farm, args: args::Prune) -> Result<Code, Error> {
    let age = args.older_than;
    let request = v1::PruneMountsRequest {
        instance: INSTANCE.to_owned(),
        project: args.layers.project.unwrap_or_default(),
        older_than: Some(kiln_proto::protobuf::Duration {
            seconds: age.as_secs() as i64,
            nanos: age.subsec_nanos() as i32,
        }),
        dry_run: args.dry_run,
    };
    let pruned = farm.call(farm.cache().prune_mounts(request)).await?.into_inner();
    if args.layers.json {
        return local::print_json(&json!({
            "dry_run": args.dry_run,
            "mounts": pruned.mounts.iter().map(object).collect::<Vec<_>>(),
            "freed_bytes": pruned.freed_bytes,
        }));
    }
    if !pruned.mounts.is_empty() {
        local::print(table(&pruned.mounts).as_bytes())?;
    }
    let mounts = terminal::count(pruned.mounts.len(), "cache mount");
    if args.dry_run {
        terminal::say(&format!("would drop {mounts}"));
    } else {
        terminal::say(&format!("dropped {mounts} and freed {}", terminal::size(pruned.freed_bytes)));
    }
    Ok(Code::Success)
}

fn table(mounts: &[v1::Mount]) -> String {
    let columns = [
        flexible("project"),
        flexible("cache"),
        flexible("platform").optional(2),
        fixed("size"),
        fixed("last use"),
        fixed("published").optional(1),
        flexible("last writer").optional(3),
    ];
    Table::new(&columns).with(mounts.iter().map(row)).for_stdout()
}

fn row(mount: &v1::Mount) -> Vec<String> {
    let name = mount.name.clone().unwrap_or_default();
    vec![
        if name.project.is_empty() { "(all)".to_owned() } else { name.project.clone() },
        label(&name),
        name.platform,
        terminal::size(mount.size_bytes),
        mount.last_use.map(ago).unwrap_or_default(),
        mount.published.map(ago).unwrap_or_default(),
        mount.writer.clone(),
    ]
}

/// The id, with what distinguishes caches of the same id.
fn label(name: &v1::CacheName) -> String {
    let owner = if name.owner.is_empty() { String::new() } else { format!(" ({})", name.owner) };
    let worker = if name.worker.is_empty() { String::new() } else { format!(" (private, {})", name.worker) };
    let scope = if name.scope.is_empty() { String::new() } else { format!(" (scope {})", name.scope) };
    format!("{}{owner}{worker}{scope}", name.id)
}

fn object(mount: &v1::Mount) -> Value {
    let name = mount.name.clone().unwrap_or_default();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "project": some(&name.project),
        "id": name.id,
        "platform": name.platform,
        "owner": some(&name.owner),
        "private_to": some(&name.worker),
        "environment": some(&name.environment),
        "scope": some(&name.scope),
        "size_bytes": mount.size_bytes,
        "published": mount.published.map(|at| time(Some(at))),
        "last_use": mount.last_use.map(|at| time(Some(at))),
        "last_writer": mount.writer,
    })
}
