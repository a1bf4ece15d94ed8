//! May this request come in, and for whom?

pub(crate) mod client_addr;
pub(crate) mod gate;
pub(crate) mod limits;
pub(crate) mod token;
