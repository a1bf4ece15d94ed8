//! Reconcilers: woken or on their period, they read what is, compare it with what should be, and do one idempotent step.

mod domain_checks;
mod key_schedule;
mod key_source;
mod maintenance_windows;
mod override_turns;
mod silent_instances;
mod stored_txt;
mod token_keys;

pub use crate::operation::NameServer;
pub(crate) use domain_checks::CheckRefusal;
pub use domain_checks::{DomainChecks, PlatformFacts};
pub(crate) use key_source::KeySourceError;
pub use maintenance_windows::MaintenanceWindows;
pub use override_turns::OverrideTurns;
pub use silent_instances::SilentInstances;
pub use stored_txt::StoredTxt;
pub use token_keys::KeyRefresher;
pub(crate) use token_keys::RefreshRefusal;
