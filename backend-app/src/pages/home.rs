//! `GET /`: the school at a glance.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Frame, Here, render};
use crate::context::admission::Tenant;
use crate::problem::Problem;
use crate::router::App;
use crate::school::Overview;
use crate::store::classes;

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage<'a> {
    frame: Frame<'a>,
    plan: &'a str,
    features: Vec<String>,
    overview: Overview,
}

pub(crate) async fn show(State(app): State<Arc<App>>, Tenant(tenant): Tenant) -> Result<Response, Problem> {
    let db = app.schools.open(&tenant).await?;
    let page = HomePage {
        frame: Frame::new(&tenant, Here::Home),
        plan: tenant.plan(),
        features: tenant.features().iter().map(|feature| feature.replace('_', " ")).collect(),
        overview: classes::overview(&mut *db.read().await?).await?,
    };
    render(StatusCode::OK, &page)
}
