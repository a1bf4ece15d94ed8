//! `schoolgate snapshot show|diff`: a published or last good snapshot, as text.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use schoolgate_config::feed::FeedAnswer;
use schoolgate_config::snapshot::{Object, Snapshot};
use schoolgate_config::table::{NoLive, RoutingTable};
use schoolgate_proxy::feed::last_good::{self, Stored};
use serde_json::{Value, json};

/// `schoolgate snapshot …`
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Print a snapshot, an object per line; keys are left out
    Show {
        /// A proxy's directory of the last good state, or a file with an answer of the feed
        #[arg(default_value = "./data/proxy/last-good")]
        from: PathBuf,
    },
    /// Print what differs between two snapshots
    Diff {
        /// The older: a directory of the last good state, or a file with an answer of the feed
        old: PathBuf,
        /// The newer
        new: PathBuf,
    },
}

/// Prints it.
pub(crate) fn run(command: &SnapshotCommand) -> anyhow::Result<()> {
    let text = match command {
        SnapshotCommand::Show { from } => show(&read(from)?),
        SnapshotCommand::Diff { old, new } => diff(&read(old)?, &read(new)?),
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn read(path: &Path) -> anyhow::Result<Snapshot> {
    if path.is_dir() {
        let stored = last_good::peek(path)?;
        return whole(stored.with_context(|| format!("{} holds no last good state", path.display()))?);
    }
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    match FeedAnswer::decode(&bytes).with_context(|| format!("{} is not a snapshot", path.display()))? {
        FeedAnswer::Snapshot(snapshot) => Ok(snapshot),
        _ => bail!("{} holds no snapshot, only what changed; ask the feed with after=0", path.display()),
    }
}

/// The snapshot that a base and what came after it lead to.
pub(super) fn whole(stored: Stored) -> anyhow::Result<Snapshot> {
    let mut table = RoutingTable::<NoLive>::from_snapshot(&stored.snapshot, &NoLive, None)?;
    for delta in &stored.deltas {
        table = table.apply(delta, &NoLive)?;
    }
    Ok(table.to_snapshot())
}

fn show(snapshot: &Snapshot) -> String {
    let mut text = format!("revision {}, {} objects\n", snapshot.revision, snapshot.objects.len());
    for (key, value) in lines(snapshot) {
        text.push_str(&format!("{key} {value}\n"));
    }
    text
}

fn diff(old: &Snapshot, new: &Snapshot) -> String {
    let mut text = format!("revision {} -> {}\n", old.revision, new.revision);
    let (before, after) = (lines(old), lines(new));
    for (key, value) in &before {
        if after.get(key) != Some(value) {
            text.push_str(&format!("- {key} {value}\n"));
        }
    }
    for (key, value) in &after {
        if before.get(key) != Some(value) {
            text.push_str(&format!("+ {key} {value}\n"));
        }
    }
    text
}

fn lines(snapshot: &Snapshot) -> BTreeMap<String, Value> {
    snapshot.objects.iter().map(|object| (object.key().to_string(), shown(object))).collect()
}

/// What may be seen of an object: everything but keys, sealed ones too.
fn shown(object: &Object) -> Value {
    match object {
        Object::Plan(v) => json!(v),
        Object::Pool(v) => {
            let mut shown = json!(v);
            if let Some(set) = &v.client_certificate {
                shown["client_certificate"] = json!({ "fingerprint": set.fingerprint() });
            }
            shown
        }
        Object::Zone(v) => json!(v),
        Object::Tenant(v) => json!(v),
        Object::Domain(v) => json!(v),
        Object::Route(v) => json!(v),
        Object::TokenIssuer(v) => json!(v),
        Object::Platform(v) => json!(v),
        Object::AcmeAccount(v) => json!(v),
        Object::Challenge(v) => json!(v),
        Object::Certificate(v) => json!(v.about),
        Object::ContextKey(v) => json!({ "id": v.id, "state": v.state, "public": hex::encode(&v.public) }),
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::{Plan, Revision};

    use super::*;

    fn snapshot(revision: u64, plans: &[Plan]) -> Snapshot {
        let objects = plans.iter().cloned().map(Object::from).collect();
        Snapshot { revision: Revision(revision), objects }
    }

    #[test]
    fn only_what_differs_is_in_a_diff() {
        let plans = Plan::catalogue();
        let mut changed = plans.clone();
        changed[0].name = "Other".to_owned();
        changed.pop();
        let text = diff(&snapshot(1, &plans), &snapshot(2, &changed));
        assert!(text.starts_with("revision 1 -> 2\n"));
        assert_eq!(text.lines().filter(|l| l.starts_with("- ")).count(), 2, "{text}");
        assert_eq!(text.lines().filter(|l| l.starts_with("+ ")).count(), 1, "{text}");
    }

    #[test]
    fn every_object_is_a_line() {
        let plans = Plan::catalogue();
        assert_eq!(show(&snapshot(1, &plans)).lines().count(), plans.len() + 1);
    }
}
