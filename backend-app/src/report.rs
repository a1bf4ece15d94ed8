//! What this instance tells the control plane of the schools it serves: how many people, how much data.
//!
//! Of a school that was opened or changed it tells within a second or so, of all that are open once in a while. What the
//! control plane does not take is told again later; nothing here waits for it.

use std::collections::HashSet;
use std::time::Duration;

use axum::http::Method;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::context::TenantId;
use crate::control::{Control, ControlError};
use crate::options::ReportTo;
use crate::store::{Schools, people};

/// Time between two reports of everything: 60 s.
const EVERY: Duration = Duration::from_secs(60);

/// Time that changes are gathered for before they are told: 1 s. A class that is enrolled is one report.
const GATHER: Duration = Duration::from_secs(1);

/// Wait after a report that was not taken: 5 s.
const AGAIN: Duration = Duration::from_secs(5);

/// Schools in one report: 500, half of what the control plane takes.
const MOST: usize = 500;

#[derive(Serialize)]
struct Report<'a> {
    instance: &'a str,
    tenants: Vec<School>,
}

#[derive(Serialize)]
struct School {
    tenant: String,
    users: i64,
    students: i64,
    storage_bytes: i64,
}

/// Reports for one instance.
pub(crate) struct Reporter {
    url: String,
    instance: String,
    control: Control,
}

impl Reporter {
    /// Reports of the instance with this name.
    pub(crate) fn new(to: ReportTo, instance: String) -> Self {
        Self { url: to.url, instance, control: Control::new(to.token_file) }
    }

    /// Reports until it is dropped.
    pub(crate) async fn run(&self, schools: &Schools) {
        let mut next_of_all = Instant::now() + EVERY;
        let mut untold = HashSet::new();
        let mut failing = false;
        loop {
            tokio::select! {
                () = schools.news.notified() => sleep(GATHER).await,
                () = sleep_until(next_of_all) => {}
                () = sleep(AGAIN), if failing => {}
            }
            untold.extend(schools.take_changed());
            if next_of_all <= Instant::now() {
                next_of_all = Instant::now() + EVERY;
                untold.extend(schools.open_now().into_iter().map(|(tenant, _)| tenant));
            }
            match self.tell(schools, &mut untold).await {
                Ok(()) if failing => {
                    failing = false;
                    info!("reports reach the control plane again");
                }
                Ok(()) => {}
                Err(error) if !failing => {
                    failing = true;
                    let error: &dyn std::error::Error = &error;
                    warn!(error, "what schools use is not reported and will be tried again: {error}");
                }
                Err(_) => {}
            }
        }
    }

    /// Tells of these schools, and forgets those it has told of. One that is no longer open has been told of, or will be
    /// when it is opened again.
    async fn tell(&self, schools: &Schools, untold: &mut HashSet<TenantId>) -> Result<(), ControlError> {
        let open = schools.open_now();
        untold.retain(|tenant| open.iter().any(|(id, _)| id == tenant));
        let mut counted = Vec::new();
        for (tenant, db) in open.into_iter().filter(|(tenant, _)| untold.contains(tenant)) {
            let people = async { people::counted(&mut *db.read().await?).await };
            match people.await {
                Ok(people::Counted { users, students, storage_bytes }) => {
                    let school = School { tenant: tenant.to_string(), users, students, storage_bytes };
                    counted.push((tenant, school));
                }
                // Its requests fail as well, and say why.
                Err(error) => warn!(tenant.id = %tenant, "{tenant} cannot be counted: {error}"),
            }
        }
        while !counted.is_empty() {
            let rest = counted.split_off(counted.len().min(MOST));
            let (told, tenants): (Vec<_>, Vec<_>) = std::mem::replace(&mut counted, rest).into_iter().unzip();
            self.send(&Report { instance: &self.instance, tenants }).await?;
            told.iter().for_each(|tenant| {
                untold.remove(tenant);
            });
        }
        Ok(())
    }

    async fn send(&self, report: &Report<'_>) -> Result<(), ControlError> {
        self.control.ask(Method::POST, &self.url, report).await.map(drop)
    }
}
