//! What a gateway is told to do: the domain's types, who is asking, the routing table, snapshots and settings.
//!
//! Both planes trust this crate, so it holds no socket, no database and no runtime: everything here is a value or a
//! pure function of values.
//!
//! * [`model`]: tenants, domains, zones, plans, pools, routes, certificates. A value that exists is valid.
//! * [`identity`]: which tenant a request is for; the proxy and `explain` call the same function.
//! * [`table`]: the routing table, persistent maps that a delta changes at the cost of what changed.
//! * [`snapshot`]: what the data plane knows at one revision, and the deltas between two.
//! * [`feed`]: what travels between a control process and a proxy.
//! * [`context`]: the claims of the signed `X-Tenant-Context`.
//! * [`limits`]: which limits hold for a tenant, and where each comes from; [`calendar`]: its days and months.
//! * [`usage`]: what tenants used, and how parts of it are merged.
//! * [`settings`]: what one process is started with.
//! * [`seal`]: how private keys are kept; [`time`]: the only reader of the wall clock.

pub mod calendar;
pub mod context;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod identity;
pub mod limits;
pub mod model;
pub mod seal;
pub mod settings;
pub mod snapshot;
pub mod table;
pub mod time;
pub mod usage;
