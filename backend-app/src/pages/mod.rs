//! The school as pages, rendered here: weak phones and slow links need no script.
//!
//! Everything in a template is escaped; the policy below forbids scripts altogether, so what slipped through could not run.

pub(crate) mod asset;
pub(crate) mod classes;
pub(crate) mod home;
pub(crate) mod students;
pub(crate) mod theme;

use askama::Template;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::error;

use self::theme::Look;
use crate::context::TenantContext;
use crate::problem::Problem;

/// What a page may load and do: our own style sheets, pictures over HTTPS (a school's logo is where the school keeps it), our forms.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src 'self' https:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// What all pages have around their content.
struct Frame<'a> {
    school: &'a str,
    look: Look,
    /// Changes with the app's style sheet, so that browsers may keep it.
    css_version: String,
    here: Here,
}

/// Which page this is, for the menu.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Here {
    Home,
    Students,
    Classes,
    Elsewhere,
}

impl<'a> Frame<'a> {
    fn new(tenant: &'a TenantContext, here: Here) -> Self {
        Self { school: tenant.name(), look: Look::of(tenant.theme()), css_version: asset::css_version(), here }
    }

    /// What marks a menu entry as the page we are on.
    fn current(&self, page: Here) -> &'static str {
        if self.here == page { "page" } else { "false" }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    frame: Frame<'a>,
    status: u16,
    title: &'a str,
    message: &'a str,
    request_id: &'a str,
}

/// A page that says what went wrong, in the school's theme.
pub(crate) fn problem_page(tenant: &TenantContext, problem: &Problem, request_id: &str) -> Response {
    let status = problem.status();
    let page = ProblemPage {
        frame: Frame::new(tenant, Here::Elsewhere),
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or("Error"),
        message: problem.message(),
        request_id,
    };
    render(status, &page).unwrap_or_else(|_| status.into_response())
}

/// Writes a page.
fn render(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    let html = page.render().map_err(|error| {
        error!("a page could not be rendered: {error}");
        Problem::internal()
    })?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    Ok((status, headers, html).into_response())
}
