//! The students of one school, as rows.

use sqlx::{FromRow, SqliteConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use ulid::Ulid;

use super::StoreError;
use crate::clock;
use crate::school::student::{StudentSection, format_day, search_text};
use crate::school::{NewStudent, Student};

#[derive(FromRow)]
struct Row {
    id: String,
    admission_no: String,
    given_name: String,
    family_name: String,
    date_of_birth: Option<String>,
    gender: Option<String>,
    section_id: Option<String>,
    section_name: Option<String>,
    class_name: Option<String>,
    enrolled_on: String,
    created_at: i64,
}

impl From<Row> for Student {
    fn from(row: Row) -> Self {
        let section = match (row.section_id, row.class_name, row.section_name) {
            (Some(id), Some(class), Some(name)) => Some(StudentSection { id, class, name }),
            _ => None,
        };
        let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(row.created_at) * 1_000_000);
        Self {
            id: row.id,
            admission_no: row.admission_no,
            given_name: row.given_name,
            family_name: row.family_name,
            date_of_birth: row.date_of_birth,
            gender: row.gender,
            section,
            enrolled_on: row.enrolled_on,
            created_at: created_at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
        }
    }
}

/// A place in the list of students, which is in the order of family name, given name, id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) family_name: String,
    pub(crate) given_name: String,
    pub(crate) id: String,
}

impl Place {
    /// Where this student stands.
    pub(crate) fn of(student: &Student) -> Self {
        Self {
            family_name: student.family_name.clone(),
            given_name: student.given_name.clone(),
            id: student.id.clone(),
        }
    }
}

/// Which students: those whose names or number contain `query`, of one section or of all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter<'a> {
    /// Empty: all.
    pub(crate) query: &'a str,
    pub(crate) section_id: Option<&'a str>,
}

/// The student with this id.
pub(crate) async fn get(db: &mut SqliteConnection, id: &str) -> Result<Option<Student>, StoreError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT s.id, admission_no, given_name, family_name, date_of_birth, gender, section_id,
                sections.name AS section_name, classes.name AS class_name, enrolled_on, created_at
         FROM students s LEFT JOIN sections ON sections.id = section_id LEFT JOIN classes ON classes.id = class_id
         WHERE s.id = ?",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    Ok(row.map(Student::from))
}

/// At most `limit` students, in order, from after `after`.
pub(crate) async fn list(
    db: &mut SqliteConnection,
    filter: Filter<'_>,
    after: Option<&Place>,
    limit: u32,
) -> Result<Vec<Student>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT s.id, admission_no, given_name, family_name, date_of_birth, gender, section_id,
                sections.name AS section_name, classes.name AS class_name, enrolled_on, created_at
         FROM students s LEFT JOIN sections ON sections.id = section_id LEFT JOIN classes ON classes.id = class_id
         WHERE search_text LIKE ?1 ESCAPE '\\'
           AND (?2 IS NULL OR section_id = ?2)
           AND (?3 IS NULL OR (family_name, given_name, s.id) > (?3, ?4, ?5))
         ORDER BY family_name, given_name, s.id
         LIMIT ?6",
    )
    .bind(pattern(filter.query))
    .bind(filter.section_id)
    .bind(after.map(|place| place.family_name.as_str()))
    .bind(after.map(|place| place.given_name.as_str()))
    .bind(after.map(|place| place.id.as_str()))
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Student::from).collect())
}

/// Page `page` (from 0) of `size` students.
pub(crate) async fn page(
    db: &mut SqliteConnection,
    query: &str,
    page: u32,
    size: u32,
) -> Result<Vec<Student>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT s.id, admission_no, given_name, family_name, date_of_birth, gender, section_id,
                sections.name AS section_name, classes.name AS class_name, enrolled_on, created_at
         FROM students s LEFT JOIN sections ON sections.id = section_id LEFT JOIN classes ON classes.id = class_id
         WHERE search_text LIKE ?1 ESCAPE '\\'
         ORDER BY family_name, given_name, s.id
         LIMIT ?2 OFFSET ?3",
    )
    .bind(pattern(query))
    .bind(size)
    .bind(i64::from(page) * i64::from(size))
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Student::from).collect())
}

/// How many students a search finds.
pub(crate) async fn count(db: &mut SqliteConnection, query: &str) -> Result<i64, StoreError> {
    let found = sqlx::query_scalar("SELECT count(*) FROM students WHERE search_text LIKE ? ESCAPE '\\'")
        .bind(pattern(query))
        .fetch_one(db)
        .await?;
    Ok(found)
}

pub(crate) async fn section_exists(db: &mut SqliteConnection, id: &str) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sections WHERE id = ?)").bind(id).fetch_one(db).await?)
}

pub(crate) async fn admission_no_exists(db: &mut SqliteConnection, number: &str) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM students WHERE admission_no = ?)")
        .bind(number)
        .fetch_one(db)
        .await?)
}

/// Writes a student and returns the new id. Within an immediate transaction the number given out is nobody else's.
pub(crate) async fn insert(
    db: &mut SqliteConnection,
    student: &NewStudent,
    now: OffsetDateTime,
) -> Result<String, StoreError> {
    let admission_no = match &student.admission_no {
        Some(number) => number.clone(),
        None => next_admission_no(db, now.year()).await?,
    };
    let id = Ulid::generate().to_string();
    sqlx::query(
        "INSERT INTO students (id, admission_no, given_name, family_name, date_of_birth, gender, section_id, enrolled_on,
                               created_at, search_text)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&id)
    .bind(&admission_no)
    .bind(&student.given_name)
    .bind(&student.family_name)
    .bind(student.date_of_birth.map(format_day))
    .bind(student.gender.map(|gender| gender.as_str()))
    .bind(&student.section_id)
    .bind(format_day(student.enrolled_on.unwrap_or(now.date())))
    .bind(clock::millis(now))
    .bind(student.search_text(&admission_no))
    .execute(db)
    .await?;
    Ok(id)
}

/// `2026-0009` after `2026-0008`. Numbers of other forms are the school's own affair and are passed over.
async fn next_admission_no(db: &mut SqliteConnection, year: i32) -> Result<String, StoreError> {
    let last: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(CAST(substr(admission_no, 6) AS INTEGER)), 0) FROM students
         WHERE admission_no GLOB ? AND length(admission_no) <= 12",
    )
    .bind(format!("{year:04}-[0-9][0-9][0-9][0-9]*"))
    .fetch_one(db)
    .await?;
    Ok(format!("{year:04}-{:04}", last + 1))
}

/// A LIKE pattern that finds `query` anywhere, with its own `%` and `_` taken literally.
fn pattern(query: &str) -> String {
    let literal = search_text(query).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{literal}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_for_a_wildcard_finds_only_itself() {
        assert_eq!(pattern("100%_\\"), "%100\\%\\_\\\\%");
        assert_eq!(pattern(""), "%%");
    }
}
