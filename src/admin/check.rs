//! `schoolgate check`: settings load, the store opens, a snapshot assembles, sealed keys open.

use std::io::Write;

use anyhow::bail;
use schoolgate_acme::internal::InternalAuthority;
use schoolgate_config::model::{Certificate, ClientCertificate, ContextKey, Revision};
use schoolgate_config::seal::Keeper;
use schoolgate_config::settings::Settings;
use schoolgate_config::snapshot::{Object, Snapshot};
use schoolgate_config::table::{NoLive, RoutingTable};
use schoolgate_proxy::feed::last_good;
use schoolgate_store::{OpenMode, Store, StoreError};

use super::snapshot;
use crate::cli::SettingsArgs;
use crate::role;

/// What was found, line by line.
#[derive(Default)]
struct Findings {
    lines: Vec<(&'static str, String)>,
    problems: usize,
}

impl Findings {
    fn good(&mut self, what: &'static str, text: impl Into<String>) {
        self.lines.push((what, text.into()));
    }

    fn bad(&mut self, what: &'static str, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            if !text.contains(&error.to_string()) {
                text = format!("{text}: {error}");
            }
            cause = error.source();
        }
        self.problems += 1;
        self.lines.push((what, format!("PROBLEM: {text}")));
    }

    fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        for (what, text) in &self.lines {
            writeln!(out, "{what:<13} {text}")?;
        }
        Ok(())
    }
}

/// Checks everything, prints what was found, and fails if anything is wrong.
pub(crate) fn run(args: &SettingsArgs) -> anyhow::Result<()> {
    let settings = role::start::load(args, &role::start::Flags::new(args)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut findings = Findings::default();
    findings.good("settings", format!("good; data directory {}", settings.data.dir.display()));
    runtime.block_on(check(&settings, &mut findings))?;
    findings.print()?;
    match findings.problems {
        0 => Ok(()),
        1 => bail!("1 problem was found"),
        n => bail!("{n} problems were found"),
    }
}

async fn check(settings: &Settings, findings: &mut Findings) -> anyhow::Result<()> {
    let key_file = settings.key_file();
    let keeper = match Keeper::open(&key_file) {
        Ok(keeper) => {
            findings.good("key file", format!("good; key {} in {}", keeper.id(), key_file.display()));
            Some(keeper)
        }
        Err(_) if !key_file.exists() && !settings.sqlite_file()?.exists() => {
            findings.good("key file", format!("none yet; the first start makes {}", key_file.display()));
            None
        }
        Err(error) => {
            findings.bad("key file", &error);
            None
        }
    };
    check_store(settings, keeper.as_ref(), findings).await?;
    check_last_good(settings, keeper.as_ref(), findings);
    if let Some(keeper) = &keeper {
        check_ca(settings, keeper, findings);
    }
    Ok(())
}

async fn check_store(settings: &Settings, keeper: Option<&Keeper>, findings: &mut Findings) -> anyhow::Result<()> {
    let url = role::control::store_url(settings)?;
    let store = match Store::open(&url, OpenMode::Existing).await {
        Ok(store) => store,
        Err(StoreError::Absent { path }) => {
            findings.good("store", format!("none yet; the first start of `up` or `control` makes {}", path.display()));
            return Ok(());
        }
        Err(error) => {
            findings.bad("store", &error);
            return Ok(());
        }
    };
    match store.everything().await {
        Err(error) => findings.bad("store", &error),
        Ok((change, objects)) => {
            findings.good("store", format!("good; {} objects at change {change}", objects.len()));
            check_keys("sealed keys", &objects, keeper, findings);
            let snapshot = Snapshot { revision: Revision(change), objects };
            match RoutingTable::from_snapshot(&snapshot, &NoLive, None) {
                Ok(table) => findings.good(
                    "snapshot",
                    format!("good; {} tenants, {} domains", table.tenant_count(), table.domain_count()),
                ),
                Err(violations) => findings.bad("snapshot", &violations),
            }
        }
    }
    match store.verify_audit().await {
        Ok(Ok(lines)) => findings.good("audit", format!("good; {lines} lines, each follows from the one before")),
        Ok(Err(broken)) => findings.bad("audit", &broken),
        Err(error) => findings.bad("audit", &error),
    }
    store.close().await;
    Ok(())
}

fn check_keys(what: &'static str, objects: &[Object], keeper: Option<&Keeper>, findings: &mut Findings) {
    let Some(keeper) = keeper else { return };
    let mut good = 0;
    for object in objects {
        let opened = match object {
            Object::Certificate(c) => {
                keeper.open_key(Certificate::KEY_PURPOSE, &c.about.fingerprint.to_string(), &c.key)
            }
            Object::ContextKey(k) => keeper.open_key(ContextKey::KEY_PURPOSE, k.id.as_str(), &k.private),
            Object::Pool(pool) => match &pool.client_certificate {
                Some(set) if !set.chain.is_empty() => {
                    let subject = ClientCertificate::subject(&pool.id, &set.chain[0]);
                    keeper.open_key(ClientCertificate::KEY_PURPOSE, &subject, &set.key)
                }
                _ => continue,
            },
            _ => continue,
        };
        match opened {
            Ok(_) => good += 1,
            // One line for all: where one does not open, usually none does.
            Err(error) => return findings.bad(what, &error),
        }
    }
    findings.good(what, format!("good; {good} open"));
}

fn check_last_good(settings: &Settings, keeper: Option<&Keeper>, findings: &mut Findings) {
    let dir = settings.path(&settings.proxy.last_good);
    if !dir.is_dir() {
        return;
    }
    let found = last_good::peek(&dir).map_err(anyhow::Error::from);
    match found.and_then(|stored| stored.map(snapshot::whole).transpose()) {
        Ok(None) => findings.good("last good", format!("none yet in {}", dir.display())),
        Ok(Some(found)) => {
            findings.good("last good", format!("good; revision {}, {} objects", found.revision, found.objects.len()));
            check_keys("its keys", &found.objects, keeper, findings);
        }
        Err(error) => findings.bad("last good", error.as_ref()),
    }
}

fn check_ca(settings: &Settings, keeper: &Keeper, findings: &mut Findings) {
    let (key_file, certificate_file) = role::control::ca_files(settings);
    if !key_file.exists() {
        return;
    }
    let clock = std::sync::Arc::new(schoolgate_config::time::SystemClock);
    match InternalAuthority::open(&key_file, keeper, clock) {
        Ok(ca) => findings.good(
            "internal CA",
            format!(
                "good until {}; clients trust {}",
                schoolgate_config::time::rfc3339(ca.not_after() * 1_000),
                certificate_file.display()
            ),
        ),
        Err(error) => findings.bad("internal CA", &error),
    }
}
