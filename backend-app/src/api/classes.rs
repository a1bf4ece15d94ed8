//! `GET /api/classes`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::context::admission::Tenant;
use crate::problem::Problem;
use crate::router::App;
use crate::school::Class;
use crate::store::classes;

/// A list that is never long enough to be cut.
#[derive(Serialize)]
pub(crate) struct ClassList {
    items: Vec<Class>,
    next: Option<String>,
}

pub(crate) async fn list(State(app): State<Arc<App>>, Tenant(tenant): Tenant) -> Result<Json<ClassList>, Problem> {
    let db = app.schools.open(&tenant).await?;
    let items = classes::list(&mut *db.read().await?).await?;
    Ok(Json(ClassList { items, next: None }))
}
