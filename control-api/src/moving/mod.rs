//! Moving a school to another pool, plan or both, while its visitors go on.
//!
//! 1. The new pool is made if need be, and every proxy finds it healthy.
//! 2. A share of the requests goes there, each by itself: 1, 10, 50, 100 %. Each share is watched ([`guard`]) before more
//!    follow.
//! 3. What is under way at the old pool finishes.
//! 4. The tenant is on the new pool and plan.
//!
//! A share is the tenant's canary, so each step is one ordinary change with its line of audit, and going back is another
//! one: the canary goes, and all is as it was. That is done when somebody asks for it, or when the guard says so.
//!
//! What comes next is a pure function ([`machine`]) of the operation's row and of what is seen; [`worker`] looks and
//! writes, under a lease. A step is in the same transaction as the row, so whoever goes on after a crash goes on there.

mod guard;
mod machine;
mod worker;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use schoolgate_config::feed::ShareReport;
use schoolgate_config::model::{NodeId, Percent, PlanId, PoolId};

pub use worker::Migrations;

/// The name of this kind of operation.
pub(crate) const KIND: &str = "migrate";

/// Makes pools that are not there: instances that listen, and the pool that leads to them.
#[async_trait]
pub trait PoolMaker: Send + Sync {
    /// Makes a dedicated pool with instances. One that is there and has some is left alone.
    ///
    /// # Errors
    /// What is in the way, for an operator to read.
    async fn make(&self, pool: &PoolId) -> Result<(), String>;
}

/// Where a school is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Place {
    /// Its plan.
    pub(crate) plan: PlanId,
    /// Its pool.
    pub(crate) pool: PoolId,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// The new pool is made, if it is not there.
    Prepare,
    /// Every proxy has to find it healthy.
    Check,
    /// A share goes there and is watched.
    Shift,
    /// All goes there; what is under way at the old pool finishes.
    Drain,
    /// The tenant is on the new pool and plan.
    Switch,
    /// All goes to the old pool again.
    Undo,
    /// Nothing more comes.
    End,
}

impl Step {
    /// The name used in JSON and in the audit.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Check => "check",
            Self::Shift => "shift",
            Self::Drain => "drain",
            Self::Switch => "switch",
            Self::Undo => "undo",
            Self::End => "end",
        }
    }
}

/// A school on its way: what an operation of this kind keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Migration {
    /// Where it was.
    pub(crate) from: Place,
    /// Where it goes.
    pub(crate) to: Place,
    /// What is being done.
    pub(crate) step: Step,
    /// The share that goes to the new pool.
    pub(crate) percent: Percent,
    /// When the step was written, milliseconds since 1970.
    pub(crate) written_ms: i64,
    /// The change that it was written with.
    pub(crate) change: Option<u64>,
    /// When every live proxy served it, milliseconds since 1970; `null` until then.
    pub(crate) since_ms: Option<i64>,
    /// What each proxy had counted then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub(crate) counted: BTreeMap<NodeId, Counted>,
    /// How slow the slowest hundredth of the old pool's answers was when it was last seen, microseconds.
    pub(crate) old_p99_us: Option<u64>,
    /// Why it is undone, or could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// What was done.
    pub(crate) history: Vec<Done>,
}

/// What one proxy has counted of a school on its way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// At the new pool.
    pub(crate) moved: ShareReport,
    /// At the old one.
    pub(crate) rest: ShareReport,
}

/// A step that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Done {
    /// When, milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Which.
    pub(crate) step: Step,
    /// The share that goes to the new pool since.
    pub(crate) percent: Percent,
    /// Why, or what was seen.
    pub(crate) note: String,
}

impl Migration {
    /// One that has not begun.
    pub(crate) fn new(from: Place, to: Place, now_ms: i64) -> Self {
        Self {
            from,
            to,
            step: Step::Prepare,
            percent: Percent::default(),
            written_ms: now_ms,
            change: None,
            since_ms: None,
            counted: BTreeMap::new(),
            old_p99_us: None,
            why: None,
            history: Vec::new(),
        }
    }

    /// Whether the tenant stays on its pool.
    pub(crate) fn stays(&self) -> bool {
        self.from.pool == self.to.pool
    }
}
