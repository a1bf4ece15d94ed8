//! `GET /classes`: grades, sections, head counts.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Frame, Here, render};
use crate::context::admission::Tenant;
use crate::problem::Problem;
use crate::router::App;
use crate::school::Class;
use crate::store::classes;

#[derive(Template)]
#[template(path = "classes.html")]
struct ClassesPage<'a> {
    frame: Frame<'a>,
    classes: Vec<Class>,
}

pub(crate) async fn show(State(app): State<Arc<App>>, Tenant(tenant): Tenant) -> Result<Response, Problem> {
    let db = app.schools.open(&tenant).await?;
    let classes = classes::list(&mut *db.read().await?).await?;
    render(StatusCode::OK, &ClassesPage { frame: Frame::new(&tenant, Here::Classes), classes })
}
