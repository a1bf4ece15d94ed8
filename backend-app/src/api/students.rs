//! `GET` and `POST /api/students`, `GET /api/students/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::admission::Tenant;
use crate::problem::Problem;
use crate::router::App;
use crate::school::enrolment::{self, EnrolError};
use crate::school::{FieldError, NewStudent, Student};
use crate::store::students::{self, Filter, Place};
use crate::{body, clock};

/// Students in an answer that asked for no number.
const DEFAULT_LIMIT: u32 = 50;

/// Most students in one answer: near 50 KiB of JSON.
const MAX_LIMIT: u32 = 200;

/// What may be asked of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[serde(default)]
    q: String,
    section: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Some students, and how to ask for those after them.
#[derive(Serialize)]
pub(crate) struct StudentList {
    items: Vec<Student>,
    next: Option<String>,
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<StudentList>, Problem> {
    let Query(query) = query.map_err(|_| Problem::bad_request("The query takes q, section, limit and cursor."))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(&format!("limit must be between 1 and {MAX_LIMIT}.")));
    }
    let after = query.cursor.as_deref().map(|cursor| {
        read_cursor(cursor).ok_or_else(|| Problem::bad_request("cursor must be the next of an earlier answer."))
    });
    let filter = Filter { query: &query.q, section_id: query.section.as_deref() };
    let db = app.schools.open(&tenant).await?;
    let mut items = students::list(&mut *db.read().await?, filter, after.transpose()?.as_ref(), limit + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| write_cursor(&Place::of(last)));
    Ok(Json(StudentList { items, next }))
}

pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
) -> Result<Json<Student>, Problem> {
    let db = app.schools.open(&tenant).await?;
    let student = students::get(&mut *db.read().await?, &id).await?;
    student.map(Json).ok_or_else(Problem::not_found)
}

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    request: Request,
) -> Result<Response, Problem> {
    let json = body::read(request, &tenant, "application/json").await?;
    let Ok(Value::Object(object)) = serde_json::from_slice(&json) else {
        return Err(Problem::invalid(vec![FieldError::new("", "invalid", "Must be a JSON object.")]));
    };
    let now = clock::now();
    let student = NewStudent::parse(&object, now.date()).map_err(Problem::invalid)?;
    let db = app.schools.open(&tenant).await?;
    let student = enrolment::enrol(&tenant, &db, &student, now).await?;
    app.schools.changed(tenant.tenant_id());
    let location = format!("/api/students/{}", student.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(student)).into_response())
}

impl From<EnrolError> for Problem {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::AdmissionNoTaken(field) => Self::conflict(field),
            EnrolError::UnknownSection(field) => Self::invalid(vec![field]),
            EnrolError::TooManyUsers(limit) => Self::user_limit(limit),
            EnrolError::Store(error) => error.into(),
        }
    }
}

fn write_cursor(place: &Place) -> String {
    let parts = [&place.family_name, &place.given_name, &place.id];
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&parts).unwrap_or_default())
}

fn read_cursor(cursor: &str) -> Option<Place> {
    let [family_name, given_name, id] = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    Some(Place { family_name, given_name, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        let place = Place { family_name: "Yılmaz".into(), given_name: "\"E\"".into(), id: "01".into() };
        assert_eq!(read_cursor(&write_cursor(&place)), Some(place));
        assert_eq!(read_cursor("not a cursor"), None);
        assert_eq!(read_cursor(&URL_SAFE_NO_PAD.encode("[1,2,3]")), None);
    }
}
