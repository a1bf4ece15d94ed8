//! The classes of one school, and the school at a glance.

use sqlx::SqliteConnection;

use super::StoreError;
use crate::school::{AcademicYear, Class, Overview, Section};

/// All classes with their sections and head counts, in order.
pub(crate) async fn list(db: &mut SqliteConnection) -> Result<Vec<Class>, StoreError> {
    let classes: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT id, name, level FROM classes ORDER BY level").fetch_all(&mut *db).await?;
    let sections: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT class_id, sections.id, name, (SELECT count(*) FROM students WHERE section_id = sections.id)
         FROM sections ORDER BY name",
    )
    .fetch_all(db)
    .await?;
    let mut classes: Vec<Class> =
        classes.into_iter().map(|(id, name, level)| Class { id, name, level, sections: Vec::new() }).collect();
    for (class_id, id, name, students) in sections {
        if let Some(class) = classes.iter_mut().find(|class| class.id == class_id) {
            class.sections.push(Section { id, name, students });
        }
    }
    Ok(classes)
}

/// The school at a glance.
pub(crate) async fn overview(db: &mut SqliteConnection) -> Result<Overview, StoreError> {
    let academic_year: Option<(String, String, String)> =
        sqlx::query_as("SELECT name, starts_on, ends_on FROM academic_years WHERE is_current = 1")
            .fetch_optional(&mut *db)
            .await?;
    let (students, classes, sections, departments, subjects): (i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM students), (SELECT count(*) FROM classes), (SELECT count(*) FROM sections),
                (SELECT count(*) FROM departments), (SELECT count(*) FROM subjects)",
    )
    .fetch_one(db)
    .await?;
    let academic_year = academic_year.map(|(name, starts_on, ends_on)| AcademicYear { name, starts_on, ends_on });
    Ok(Overview { academic_year, students, classes, sections, departments, subjects })
}
