//! `GET` and `POST /students`: the list, the search, and the form that enrols.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Frame, Here, render};
use crate::context::TenantContext;
use crate::context::admission::Tenant;
use crate::problem::Problem;
use crate::router::App;
use crate::school::enrolment::{self, EnrolError};
use crate::school::{Class, FieldError, NewStudent, Student};
use crate::store::{SchoolDb, classes, students};
use crate::{body, clock};

/// Students on one page.
const PAGE_SIZE: u32 = 25;

/// What the address of the page may say.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageQuery {
    #[serde(default)]
    q: String,
    /// From 1.
    page: Option<u32>,
    /// The student who was just enrolled.
    added: Option<String>,
}

#[derive(Template)]
#[template(path = "students.html")]
struct StudentsPage<'a> {
    frame: Frame<'a>,
    query: &'a str,
    students: Vec<Student>,
    found: i64,
    page: u32,
    pages: u32,
    added: Option<Student>,
    classes: Vec<Class>,
    form: Form,
}

/// The enrolment form: what was typed, and what is wrong with it.
#[derive(Default)]
struct Form {
    typed: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Form {
    fn value(&self, field: &str) -> &str {
        self.typed.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn is(&self, field: &str, value: &str) -> bool {
        self.value(field) == value
    }

    fn error(&self, field: &str) -> Option<&str> {
        self.errors
            .iter()
            .find(|error| error.pointer.strip_prefix('/') == Some(field))
            .map(|error| error.message.as_str())
    }
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::bad_request("The address is not understood."))?;
    let db = app.schools.open(&tenant).await?;
    list(&tenant, &db, &query, Form::default(), StatusCode::OK).await
}

pub(crate) async fn enrol(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(Problem::forbidden("This form was sent from another site."));
    }
    let sent = body::read(request, &tenant, "application/x-www-form-urlencoded").await?;
    let fields = form_urlencoded::parse(&sent).into_owned();
    let typed: Map<String, Value> = fields.map(|(field, text)| (field, Value::String(text))).collect();
    let db = app.schools.open(&tenant).await?;
    let now = clock::now();
    let (status, errors) = match NewStudent::parse(&typed, now.date()) {
        Err(errors) => (StatusCode::BAD_REQUEST, errors),
        Ok(student) => match enrolment::enrol(&tenant, &db, &student, now).await {
            Ok(student) => {
                app.schools.changed(tenant.tenant_id());
                return Ok(Redirect::to(&format!("/students?added={}", student.id)).into_response());
            }
            Err(EnrolError::AdmissionNoTaken(field)) => (StatusCode::CONFLICT, vec![field]),
            Err(EnrolError::UnknownSection(field)) => (StatusCode::BAD_REQUEST, vec![field]),
            Err(EnrolError::TooManyUsers(limit)) => (StatusCode::FORBIDDEN, vec![limit]),
            Err(EnrolError::Store(error)) => return Err(error.into()),
        },
    };
    list(&tenant, &db, &PageQuery::default(), Form { typed, errors }, status).await
}

async fn list(
    tenant: &TenantContext,
    db: &SchoolDb,
    query: &PageQuery,
    form: Form,
    status: StatusCode,
) -> Result<Response, Problem> {
    let mut reading = db.read().await?;
    let found = students::count(&mut reading, &query.q).await?;
    let pages = u32::try_from(found).unwrap_or(u32::MAX).div_ceil(PAGE_SIZE).max(1);
    let page = query.page.unwrap_or(1).clamp(1, pages);
    let added = match &query.added {
        Some(id) => students::get(&mut reading, id).await?,
        None => None,
    };
    let shown = StudentsPage {
        frame: Frame::new(tenant, Here::Students),
        query: &query.q,
        students: students::page(&mut reading, &query.q, page - 1, PAGE_SIZE).await?,
        found,
        page,
        pages,
        added,
        classes: classes::list(&mut reading).await?,
        form,
    };
    drop(reading);
    render(status, &shown)
}
