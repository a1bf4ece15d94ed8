//! The school as JSON.

pub(crate) mod classes;
pub(crate) mod live;
pub(crate) mod students;
pub(crate) mod whoami;
