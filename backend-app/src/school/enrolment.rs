//! Enrolling a student: what must hold between the new one and the school.

use time::OffsetDateTime;

use super::{FieldError, NewStudent, Student};
use crate::store::{SchoolDb, StoreError, students};

/// Why a student was not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// Another student has this number.
    #[error("the admission number is taken")]
    AdmissionNoTaken(FieldError),
    /// The school has no such section.
    #[error("there is no such section")]
    UnknownSection(FieldError),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Enrols a student. One transaction: two instances that enrol at once give out two numbers.
///
/// # Errors
/// [`EnrolError`]; then nothing was written.
pub(crate) async fn enrol(db: &SchoolDb, student: &NewStudent, now: OffsetDateTime) -> Result<Student, EnrolError> {
    let mut writing = db.write().await?;
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
