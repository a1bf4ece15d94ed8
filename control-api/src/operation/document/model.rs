//! Reading the parts of the model, with the bounds of their values.

use schoolgate_config::model::{
    Canary, CanaryBy, CookieMatch, Ejection, FilePath, FilesAnswer, FixedAnswer, HeaderMatch, HealthCheckForm, Limits,
    Percent, PoolTimeouts, ProbeKind, Profile, QueueRules, Quota, Redirect, Retry, Rewrite, RouteAction, RouteMatch,
    RouteTimeouts, Security, StickyCookie, Subscription, Theme, UpstreamTls,
};

use serde_json::Value;

use super::{Errors, Fields, Place, Readable, Text, readable};

readable!(Profile { legal_name, short_name, address, email, phone, motto });
readable!(Theme { primary_color, secondary_color, font_family, logo_url, favicon_url });
readable!(Security { hsts_max_age_s, hsts_include_subdomains, frame_options, referrer_policy });
readable!(Subscription { status = Default::default(), starts_at, ends_at });
readable!(Quota { value, mode = Default::default() });
readable!(Limits {
    users,
    storage_bytes,
    requests_per_day,
    bytes_per_month,
    requests_per_minute,
    burst,
    requests_per_minute_per_client,
    classes = Default::default(),
    in_flight,
    websockets,
    custom_domains,
    body_bytes,
    upload_bytes,
    shadow = Default::default(),
});
readable!(HealthCheckForm {
    kind = ProbeKind::Http,
    path,
    interval_ms = Self::default().interval_ms,
    timeout_ms = Self::default().timeout_ms,
    healthy_after = Self::default().healthy_after,
    unhealthy_after = Self::default().unhealthy_after,
    expect,
    expect_body,
    service,
});
readable!(Ejection {
    consecutive_failures = Self::default().consecutive_failures,
    base_ms = Self::default().base_ms,
    max_percent = Self::default().max_percent,
    panic_percent = Self::default().panic_percent,
});
readable!(PoolTimeouts {
    connect_ms = Self::default().connect_ms,
    first_byte_ms,
    read_ms = Self::default().read_ms,
    write_ms = Self::default().write_ms,
    idle_ms = Self::default().idle_ms,
    total_ms,
});
readable!(QueueRules {
    wait_ms = Self::default().wait_ms,
    length = Self::default().length,
    priority_in_flight = Self::default().priority_in_flight,
    priority_paths = Self::default().priority_paths,
});
readable!(Retry {
    attempts = Self::default().attempts,
    budget_percent = Self::default().budget_percent,
    buffer_bytes = Self::default().buffer_bytes,
});
readable!(StickyCookie {
    name = Self::default().name,
    max_age_s = Self::default().max_age_s,
    same_site = Self::default().same_site,
});
readable!(UpstreamTls { ca, sni });
readable!(RouteMatch { path_prefix, path_exact, methods = Vec::new(), headers = Vec::new(), host });
readable!(HeaderMatch { name, value });
readable!(RouteAction {
    pool,
    rewrite,
    set_headers = Default::default(),
    remove_headers = Vec::new(),
    set_response_headers = Default::default(),
    remove_response_headers = Vec::new(),
    redirect,
    requires_feature,
    body_bytes,
    timeout_ms,
    class,
    rate_class,
    lane,
    timeouts,
    maintenance = false,
    canary,
    answer,
    files,
    public = false,
});
readable!(RouteTimeouts { connect_ms, first_byte_ms, read_ms, write_ms, total_ms });
impl Readable for FixedAnswer {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        let mut fields = Fields::of(value, at, errors)?;
        let status = fields.take("status", Some(200), errors);
        let content_type = fields.take("content_type", Some("text/plain; charset=utf-8".to_owned()), errors);
        let body = fields.take("body", Some(Text::<0, { Self::BODY_CHARACTERS }>(String::new())), errors);
        fields.finish(errors);
        Some(Self { status: status?, content_type: content_type?, body: body?.0 })
    }
}
readable!(FilesAnswer { path = FilePath::default(), max_age_s = Self::MAX_AGE_S });
readable!(Canary { pool, percent = Percent::default(), by = CanaryBy::default(), header, cookie });
readable!(CookieMatch { name, value });
readable!(Rewrite { prefix });
readable!(Redirect { to, status = 308 });
