//! Routes.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{FilesAnswer, FixedAnswer, PoolId, Route, RouteAction, RouteId, RouteMatch, changeable};
use schoolgate_config::table::{RouteConflict, RoutingTable};
use schoolgate_store::Stored;

use super::canary::{check_canary, is_token};
use super::document::{Errors, Place, Text, readable};
use super::edit::{Reference, Resource};
use super::permission::Subject;
use super::tenants::tenant_of;
use super::{Refusal, Stamp};

/// What of a route an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct RouteInput {
    /// Only for this tenant: `tnt_…` or a slug.
    tenant: Option<Text<1, 80>>,
    /// Only for tenants whose pool this is.
    pool: Option<PoolId>,
    /// Routes of one scope are asked from the highest to the lowest.
    #[serde(default)]
    priority: i32,
    /// Which requests; all if not given.
    #[serde(default, rename = "match")]
    matches: RouteMatch,
    /// What happens to them.
    action: RouteAction,
}
readable!(RouteInput { tenant, pool, priority = 0, matches as "match" = RouteMatch::default(), action });

/// A route as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RouteView {
    #[serde(flatten)]
    route: Route,
    #[serde(flatten)]
    stamp: Stamp,
}

impl Resource for Route {
    type Input = RouteInput;
    const SUBJECT: Subject = Subject::Routes;
    const COLLECTION: &'static str = "routes";
    const KEY: &'static str = "id";
    const READ_ONLY: &'static [&'static str] = &["id", "version", "created_at", "updated_at"];

    fn assemble(input: RouteInput, before: Option<&Self>, table: &RoutingTable, errors: &mut Errors) -> Self {
        check_public(&input, errors);
        let tenant = input.tenant.and_then(|name| tenant_of(&name.0, table, errors));
        check_match(&input.matches, errors);
        check_action(&input.action, errors);
        if let Some(files) = &input.action.files {
            check_files(files, &input.matches, errors);
        }
        if let Some(pool) = &input.action.pool
            && table.pool(pool).is_none()
        {
            errors.add_at("/action/pool", "not_found", format!("the pool `{pool}` does not exist"));
        }
        if let Some(canary) = &input.action.canary {
            let at = Place::root().member("action").member("canary");
            check_canary(canary, input.action.pool.as_ref(), table, &at, errors);
        }
        if input.action.rewrite.is_some() && input.matches.path_prefix.is_none() && input.matches.path_exact.is_none() {
            errors.add_at("/action/rewrite", "invalid", "a rewrite replaces what the match names: give a path there");
        }
        Self {
            id: before.map_or_else(RouteId::generate, |route| route.id),
            tenant,
            pool: input.pool,
            priority: input.priority,
            matches: input.matches,
            action: input.action,
        }
    }

    fn view(stored: &Stored<Self>, _: &RoutingTable) -> Value {
        super::json(&RouteView { route: stored.value.clone(), stamp: Stamp::of(stored) })
    }

    fn references() -> &'static [Reference] {
        &[("pool", |table, name| name.parse().map_or(true, |id| table.pool(&id).is_some()))]
    }

    fn check(&self, _: Option<&Self>, table: &RoutingTable) -> Result<(), Refusal> {
        let Some(conflict) = table.routes_of(&self.scope()).and_then(|routes| routes.conflict(self)) else {
            return Ok(());
        };
        let described = |id: &RouteId| table.route(id).map_or_else(|| id.to_string(), |route| described(route));
        let (code, message) = match &conflict {
            RouteConflict::Same(other) => {
                ("same_match", format!("{} is for the same requests: change that one", described(other)))
            }
            RouteConflict::ShadowedBy(other) => (
                "shadowed",
                format!(
                    "it would never match: {} is asked first and takes all its requests; give this one a higher priority",
                    described(other)
                ),
            ),
            // Maintenance is laid over other routes for a while, and taken away again.
            RouteConflict::Shadows(_) if self.action.maintenance => return Ok(()),
            RouteConflict::Shadows(other) => (
                "shadows",
                format!(
                    "{} would never match any more: this one would be asked first and take all its requests; give \
                     this one a lower priority, or delete that one",
                    described(other)
                ),
            ),
        };
        Err(Refusal::invalid("/match", code, message))
    }
}

/// A route in a sentence.
fn described(route: &Route) -> String {
    let RouteMatch { path_prefix, path_exact, .. } = &route.matches;
    let path = match (path_exact, path_prefix) {
        (Some(exact), _) => format!("for {exact}"),
        (None, Some(prefix)) => format!("for {prefix}…"),
        (None, None) => "for every path".to_owned(),
    };
    format!("the route {} ({path}, priority {})", route.id, route.priority)
}

/// Whether text can stand in a request line or a header without becoming something else.
fn is_clean_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'))
}

fn check_match(matches: &RouteMatch, errors: &mut Errors) {
    for (field, path) in [("path_prefix", &matches.path_prefix), ("path_exact", &matches.path_exact)] {
        if path.as_ref().is_some_and(|path| !is_clean_path(path)) {
            let message = "expected a path that begins with / and has no query";
            errors.add_at(&format!("/match/{field}"), "invalid", message);
        }
    }
    if matches.path_prefix.is_some() && matches.path_exact.is_some() {
        errors.add_at("/match/path_exact", "invalid", "a route has a prefix or an exact path, not both");
    }
    for (i, method) in matches.methods.iter().enumerate() {
        if !is_token(method) || method.bytes().any(|b| b.is_ascii_lowercase()) {
            errors.add_at(&format!("/match/methods/{i}"), "invalid", "expected a method such as GET");
        }
    }
    for (i, header) in matches.headers.iter().enumerate() {
        if !is_token(&header.name) || header.name.bytes().any(|b| b.is_ascii_uppercase()) {
            errors.add_at(&format!("/match/headers/{i}/name"), "invalid", "expected a header in lower case");
        }
    }
}

fn check_action(action: &RouteAction, errors: &mut Errors) {
    if *action == RouteAction::default() {
        errors.add_at("/action", "invalid", "the route does nothing: give at least one action");
    }
    let forwards = action.pool.is_some() || action.canary.is_some();
    let ends = [action.redirect.is_some(), action.answer.is_some(), action.files.is_some(), action.maintenance];
    let ends = ends.into_iter().filter(|ends| *ends).count();
    if ends > 1 || (forwards && ends > 0 && !action.maintenance) {
        errors.add_at(
            "/action",
            "invalid",
            "a route forwards, redirects, answers by itself or with files, or answers maintenance; these exclude each other",
        );
    }
    if let Some(answer) = &action.answer {
        check_answer(answer, errors);
    }
    if action.rewrite.as_ref().is_some_and(|rewrite| !is_clean_path(&rewrite.prefix)) {
        errors.add_at("/action/rewrite/prefix", "invalid", "expected a path that begins with / and has no query");
    }
    if let Some(redirect) = &action.redirect {
        let to = redirect.to.as_str();
        let is_path = to.starts_with('/') && !to.starts_with("//");
        let is_url = ["https://", "http://"].iter().any(|scheme| to.len() > scheme.len() && to.starts_with(scheme));
        if !(is_path || is_url) || !to.bytes().all(|b| b.is_ascii_graphic()) {
            errors.add_at("/action/redirect/to", "invalid", "expected a URL with http or https, or a path");
        }
        if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
            errors.add_at("/action/redirect/status", "out_of_range", "expected 301, 302, 303, 307 or 308");
        }
    }
    let set = [("set_headers", &action.set_headers), ("set_response_headers", &action.set_response_headers)];
    let set = set.into_iter().flat_map(|(field, set)| set.iter().map(move |(name, value)| (field, name, Some(value))));
    let removed =
        [("remove_headers", &action.remove_headers), ("remove_response_headers", &action.remove_response_headers)];
    let removed = removed.into_iter().flat_map(|(field, names)| names.iter().map(move |name| (field, name, None)));
    for (field, name, value) in set.chain(removed) {
        let at = Place::root().member("action").member(field).member(name);
        if let Err(error) = changeable(name) {
            errors.add(&at, "invalid", error.to_string());
        } else if value.is_some_and(|value| value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f)) {
            errors.add(&at, "invalid", "control characters are not allowed in a header");
        }
    }
    let timeouts = action.timeouts.unwrap_or_default();
    for (field, ms) in [
        ("timeout_ms", action.timeout_ms),
        ("timeouts/connect_ms", timeouts.connect_ms),
        ("timeouts/first_byte_ms", timeouts.first_byte_ms),
        ("timeouts/read_ms", timeouts.read_ms),
        ("timeouts/write_ms", timeouts.write_ms),
        ("timeouts/total_ms", timeouts.total_ms),
    ] {
        if ms.is_some_and(|ms| !(1..=3_600_000).contains(&ms)) {
            errors.add_at(&format!("/action/{field}"), "out_of_range", "expected 1 to 3600000");
        }
    }
    if action.timeout_ms.is_some() && timeouts.read_ms.is_some() {
        errors.add_at("/action/timeout_ms", "invalid", "`timeouts.read_ms` says the same: give one of them");
    }
}

/// An answer is a status with a body, or one without.
fn check_answer(answer: &FixedAnswer, errors: &mut Errors) {
    let is_field = answer.content_type.bytes().all(|b| (0x20..0x7f).contains(&b)) && answer.content_type.contains('/');
    if !is_field {
        errors.add_at("/action/answer/content_type", "invalid", "expected a media type such as text/plain");
    }
    if !matches!(answer.status, 200..=599) {
        errors.add_at("/action/answer/status", "out_of_range", "expected 200 to 599");
    } else if matches!(answer.status, 204 | 205 | 304) && !answer.body.is_empty() {
        errors.add_at("/action/answer/body", "invalid", format!("an answer {} has no body", answer.status));
    } else if matches!(answer.status, 300..=308) {
        errors.add_at("/action/answer/status", "invalid", "this status sends elsewhere: use a redirect");
    }
}

/// Which file a route for one path answers with has to be said.
fn check_files(files: &FilesAnswer, matches: &RouteMatch, errors: &mut Errors) {
    if matches.path_exact.is_some() && files.path.as_str().is_empty() {
        errors.add_at("/action/files/path", "missing", "a route for one path answers with one file: name it");
    }
    if files.max_age_s > FilesAnswer::MOST_MAX_AGE_S {
        let message = format!("expected 0 to {}", FilesAnswer::MOST_MAX_AGE_S);
        errors.add_at("/action/files/max_age_s", "out_of_range", message);
    }
}

/// A public route knows no tenant, so nothing of it may depend on one.
fn check_public(input: &RouteInput, errors: &mut Errors) {
    let action = &input.action;
    if !action.public {
        return;
    }
    let own = [("/tenant", input.tenant.is_some()), ("/pool", input.pool.is_some())];
    for (field, _) in own.into_iter().filter(|(_, is_there)| *is_there) {
        errors.add_at(field, "invalid", "a public route is the platform's: it knows no tenant");
    }
    let of_tenants = [
        ("requires_feature", action.requires_feature.is_some()),
        ("maintenance", action.maintenance),
        ("canary", action.canary.is_some()),
    ];
    for (field, _) in of_tenants.into_iter().filter(|(_, is_there)| *is_there) {
        errors.add_at(&format!("/action/{field}"), "invalid", "a public route knows no tenant: leave this out");
    }
    if action.pool.is_none() && action.answer.is_none() && action.files.is_none() && action.redirect.is_none() {
        errors.add_at("/action/pool", "missing", "a public route needs a pool, an answer, files or a redirect");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_route_can_speak_for_the_gateway_on_either_way() {
        let names =
            ["Host", "x-tenant-id", "X-Forwarded-For", "Transfer-Encoding", "X-Request-ID", "Keep-Alive", "x_y"];
        for (set, remove) in [("set_headers", "remove_headers"), ("set_response_headers", "remove_response_headers")] {
            for name in names {
                let found = |json: Value| {
                    let mut errors = Errors::default();
                    check_action(&serde_json::from_value(json).expect("an action"), &mut errors);
                    !errors.is_empty()
                };
                assert!(found(json!({ set: { name: "1" } })), "{set} {name}");
                assert!(found(json!({ remove: [name] })), "{remove} {name}");
            }
        }
    }

    #[test]
    fn files_are_named_and_answered_with_instead_of_anything_else() {
        let errors = |action: Value, matches: Value| {
            let mut errors = Errors::default();
            let action: RouteAction = serde_json::from_value(action).expect("an action");
            check_action(&action, &mut errors);
            let matches = serde_json::from_value(matches).expect("a match");
            check_files(action.files.as_ref().expect("files"), &matches, &mut errors);
            !errors.is_empty()
        };
        let exact = json!({ "path_exact": "/robots.txt" });
        assert!(!errors(json!({ "files": {} }), json!({})));
        assert!(!errors(json!({ "files": { "path": "robots.txt" }, "public": true }), exact.clone()));
        assert!(errors(json!({ "files": {} }), exact));
        assert!(errors(json!({ "files": { "max_age_s": 31_536_001 } }), json!({})));
        for other in ["redirect", "answer", "pool", "maintenance"] {
            let value = match other {
                "redirect" => json!({ "to": "/x" }),
                "answer" => json!({}),
                "pool" => json!("p"),
                _ => json!(true),
            };
            assert!(errors(json!({ "files": {}, other: value }), json!({})), "{other}");
        }
    }

    #[test]
    fn an_action_that_contradicts_itself_or_does_nothing_is_refused() {
        let refused = |json: &str| {
            let mut errors = Errors::default();
            let value: Value = serde_json::from_str(json).expect("JSON");
            let action: RouteAction = serde_json::from_value(value).expect("an action");
            check_action(&action, &mut errors);
            !errors.is_empty()
        };
        assert!(refused("{}"));
        assert!(refused(r#"{"redirect":{"to":"/x"},"pool":"p"}"#));
        assert!(refused(r#"{"redirect":{"to":"javascript:x"}}"#));
        assert!(refused(r#"{"set_headers":{"x-a":"b\nc"}}"#));
        assert!(refused(r#"{"set_response_headers":{"content-length":"5"}}"#));
        assert!(refused(r#"{"remove_response_headers":["x-request-id"]}"#));
        assert!(!refused(
            r#"{"set_response_headers":{"cache-control":"no-store"},"remove_response_headers":["x-powered-by"]}"#
        ));
        assert!(refused(r#"{"answer":{"status":99}}"#) && refused(r#"{"answer":{"status":302}}"#));
        assert!(refused(r#"{"answer":{"content_type":"text/plain\nx: y"}}"#));
        assert!(refused(r#"{"answer":{"status":204,"body":"x"}}"#) && refused(r#"{"answer":{},"pool":"p"}"#));
        assert!(refused(r#"{"timeouts":{"connect_ms":0}}"#));
        assert!(refused(r#"{"timeout_ms":5,"timeouts":{"read_ms":5}}"#));
        assert!(!refused(r#"{"answer":{"body":"User-agent: *"}}"#));
        assert!(!refused(r#"{"pool":"p","set_headers":{"x-a":"b"}}"#));
    }
}
