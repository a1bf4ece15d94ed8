//! Every route of the API in one list; the OpenAPI document is made of the same list.

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::envelope::envelope;
use super::{
    Api, acme, audit, certificates, context_keys, domains, events, explain, health, instances, internal, limits,
    maintenance, nodes, openapi, operations, plans, pools, public, revisions, routes as route_handlers, sealing,
    selftest, status, tenants, token_issuers, tokens, unknown_hosts, usage, zones,
};

/// The API as a service.
pub(crate) fn router(api: Api) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = openapi::finished(document);
    let served = openapi::handler(&document);
    router
        .route("/api/v1/openapi.json", axum::routing::get(served))
        .fallback(openapi::unknown_path)
        .method_not_allowed_fallback(openapi::method_not_allowed)
        .layer(from_fn_with_state(api.clone(), envelope))
        .with_state(api)
}

/// Every route.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::create_alias))
        .routes(routes!(tenants::get, tenants::replace, tenants::patch, tenants::delete))
        .routes(routes!(tenants::suspend))
        .routes(routes!(tenants::resume))
        .routes(routes!(tenants::maintenance))
        .routes(routes!(tenants::archive))
        .routes(routes!(tenants::restore))
        .routes(routes!(tenants::domains))
        .routes(routes!(limits::show))
        .routes(routes!(limits::put, limits::clear))
        .routes(routes!(maintenance::get, maintenance::put, maintenance::delete))
        .routes(routes!(operations::migrate))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(operations::cancel))
        .routes(routes!(domains::list, domains::create))
        .routes(routes!(domains::get, domains::patch, domains::delete))
        .routes(routes!(domains::make_primary))
        .routes(routes!(domains::check))
        .routes(routes!(domains::verify))
        .routes(routes!(domains::instructions))
        .routes(routes!(domains::transfer, domains::withdraw_transfer))
        .routes(routes!(zones::list, zones::create))
        .routes(routes!(zones::get, zones::replace, zones::patch, zones::delete))
        .routes(routes!(plans::list, plans::create))
        .routes(routes!(plans::get, plans::replace, plans::patch, plans::delete))
        .routes(routes!(pools::list, pools::create))
        .routes(routes!(pools::get, pools::replace, pools::patch, pools::delete))
        .routes(routes!(pools::backends, pools::add_backend))
        .routes(routes!(pools::get_backend, pools::patch_backend, pools::remove_backend))
        .routes(routes!(pools::drain))
        .routes(routes!(pools::undrain))
        .routes(routes!(pools::put_client_certificate, pools::remove_client_certificate))
        .routes(routes!(pools::maintenance))
        .routes(routes!(pools::resume))
        .routes(routes!(route_handlers::list, route_handlers::create))
        .routes(routes!(route_handlers::get, route_handlers::replace, route_handlers::patch, route_handlers::delete))
        .routes(routes!(token_issuers::list, token_issuers::create))
        .routes(routes!(token_issuers::get, token_issuers::replace, token_issuers::patch, token_issuers::delete))
        .routes(routes!(token_issuers::refresh))
        .routes(routes!(unknown_hosts::list))
        .routes(routes!(unknown_hosts::adopt))
        .routes(routes!(unknown_hosts::ignore, unknown_hosts::heed))
        .routes(routes!(usage::tenant))
        .routes(routes!(usage::all))
        .routes(routes!(events::list))
        .routes(routes!(events::of_tenant))
        .routes(routes!(events::of_domain))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get))
        .routes(routes!(status::get))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::get))
        .routes(routes!(explain::post))
        .routes(routes!(selftest::isolation))
        .routes(routes!(certificates::list, certificates::upload))
        .routes(routes!(certificates::get, certificates::delete))
        .routes(routes!(certificates::chain))
        .routes(routes!(certificates::revoke))
        .routes(routes!(acme::queue))
        .routes(routes!(acme::budget))
        .routes(routes!(acme::renew))
        .routes(routes!(acme::retry))
        .routes(routes!(context_keys::list))
        .routes(routes!(context_keys::get))
        .routes(routes!(context_keys::rotate))
        .routes(routes!(sealing::get))
        .routes(routes!(sealing::rotate))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(public::verify_tenant))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::keys))
        .routes(routes!(internal::feed))
        .routes(routes!(internal::report))
        .routes(routes!(internal::usage))
        .routes(routes!(internal::quotas))
        .routes(routes!(instances::register))
        .routes(routes!(instances::leave))
        .routes(routes!(usage::report))
        .routes(routes!(internal::questions))
        .routes(routes!(internal::answers))
}
