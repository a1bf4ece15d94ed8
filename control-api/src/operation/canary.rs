//! What must hold of a canary, wherever it stands.

use schoolgate_config::model::{Canary, PoolId};
use schoolgate_config::table::RoutingTable;

use super::document::{Errors, Place};

/// Checks the canary at `at`, beside which the rest of the requests goes to `rest` (`None`: not said there).
pub(crate) fn check_canary(
    canary: &Canary,
    rest: Option<&PoolId>,
    table: &RoutingTable,
    at: &Place,
    errors: &mut Errors,
) {
    if table.pool(&canary.pool).is_none() {
        errors.add(&at.member("pool"), "not_found", format!("the pool `{}` does not exist", canary.pool));
    }
    if rest == Some(&canary.pool) {
        errors.add(&at.member("pool"), "invalid", "the rest of the requests goes there too: name another pool");
    }
    if let Some(header) = &canary.header
        && (!is_token(&header.name) || header.name.bytes().any(|b| b.is_ascii_uppercase()))
    {
        errors.add(&at.member("header").member("name"), "invalid", "expected a header in lower case");
    }
    if let Some(cookie) = &canary.cookie {
        if !is_token(&cookie.name) {
            errors.add(&at.member("cookie").member("name"), "invalid", "expected the name of a cookie");
        }
        // What a cookie's value may be (RFC 6265 section 4.1.1).
        if !cookie.value.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b)) {
            errors.add(&at.member("cookie").member("value"), "invalid", "a cookie has no such value");
        }
    }
}

/// Whether text is the name of a header, a cookie or a method: a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
