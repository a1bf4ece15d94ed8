//! Enrolling a student: what must hold between the new one and the school.

use time::OffsetDateTime;

use super::{FieldError, NewStudent, Student};
use crate::context::TenantContext;
use crate::store::{SchoolDb, StoreError, people, students};

/// Why a student was not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// Another student has this number.
    #[error("the admission number is taken")]
    AdmissionNoTaken(FieldError),
    /// The school has no such section.
    #[error("there is no such section")]
    UnknownSection(FieldError),
    /// The school's plan allows no more people.
    #[error("the school has as many users as its plan allows")]
    TooManyUsers(FieldError),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Enrols a student. One transaction: two instances that enrol at once give out two numbers.
///
/// # Errors
/// [`EnrolError`]; then nothing was written.
pub(crate) async fn enrol(
    tenant: &TenantContext,
    db: &SchoolDb,
    student: &NewStudent,
    now: OffsetDateTime,
) -> Result<Student, EnrolError> {
    let mut writing = db.write().await?;
    if let Some(most) = tenant.limits().users() {
        let users = people::users(&mut writing).await?;
        if u64::try_from(users).unwrap_or(0) >= most {
            return Err(EnrolError::TooManyUsers(too_many_users(tenant.plan(), users, most)));
        }
    }
    if let Some(section) = &student.section_id
        && !students::section_exists(&mut writing, section).await?
    {
        let error = FieldError::new("section_id", "unknown_section", "The school has no such section.");
        return Err(EnrolError::UnknownSection(error));
    }
    if let Some(number) = &student.admission_no
        && students::admission_no_exists(&mut writing, number).await?
    {
        let error = FieldError::new("admission_no", "taken", "Another student has this admission number.");
        return Err(EnrolError::AdmissionNoTaken(error));
    }
    let id = students::insert(&mut writing, student, now).await?;
    let enrolled = students::get(&mut writing, &id).await?;
    writing.commit().await.map_err(StoreError::Sql)?;
    enrolled.ok_or(EnrolError::Store(StoreError::Sql(sqlx::Error::RowNotFound)))
}

/// Of the school as a whole: no field of the form is wrong.
fn too_many_users(plan: &str, users: i64, most: u64) -> FieldError {
    let message = format!(
        "The plan {plan} allows {most} users, and the school has {users}. Ask whoever manages the school's plan for a larger one."
    );
    FieldError::new("", "user_limit", message)
}
