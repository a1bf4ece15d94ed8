//! What a new school begins with: enough to look at on the first day.

use sqlx::SqliteConnection;
use time::{Date, Month, OffsetDateTime};
use ulid::Ulid;

use super::{StoreError, students};
use crate::school::{Gender, NewStudent};

/// Departments and their subjects, by code.
const DEPARTMENTS: [(&str, &[(&str, &str)]); 3] = [
    ("Sciences", &[("MAT", "Mathematics"), ("PHY", "Physics"), ("CHE", "Chemistry"), ("BIO", "Biology")]),
    ("Languages", &[("ENG", "English"), ("SWA", "Swahili"), ("FRE", "French")]),
    ("Humanities", &[("HIS", "History"), ("GEO", "Geography"), ("CIV", "Civics")]),
];

/// Section, given name, family name, gender, month and day of birth.
const STUDENTS: [(&str, &str, &str, Gender, u8, u8); 8] = [
    ("A", "Amina", "Hassan", Gender::Female, 2, 14),
    ("A", "Baraka", "Mushi", Gender::Male, 7, 3),
    ("A", "Chiara", "Rossi", Gender::Female, 11, 21),
    ("A", "Daniel", "Okafor", Gender::Male, 5, 9),
    ("B", "Elif", "Yılmaz", Gender::Female, 1, 30),
    ("B", "Farid", "Rahman", Gender::Male, 9, 17),
    ("B", "Grace", "Mwangi", Gender::Female, 4, 6),
    ("B", "Hugo", "Almeida", Gender::Male, 12, 12),
];

/// Fills a new database: the current academic year with three terms, departments, subjects, Grade 10 with two sections, a few
/// students. The names are the same for every school; the ids are not.
pub(super) async fn plant(db: &mut SqliteConnection, now: OffsetDateTime) -> Result<(), StoreError> {
    let year = academic_year(db, now.year()).await?;
    for (name, first, last) in [
        ("Term 1", Month::January, Month::April),
        ("Term 2", Month::May, Month::August),
        ("Term 3", Month::September, Month::December),
    ] {
        sqlx::query("INSERT INTO terms (id, academic_year_id, name, starts_on, ends_on) VALUES (?, ?, ?, ?, ?)")
            .bind(new_id())
            .bind(&year)
            .bind(name)
            .bind(day(now.year(), first, 1))
            .bind(day(now.year(), last, 28))
            .execute(&mut *db)
            .await?;
    }
    for (department, subjects) in DEPARTMENTS {
        let id = new_id();
        sqlx::query("INSERT INTO departments (id, name) VALUES (?, ?)")
            .bind(&id)
            .bind(department)
            .execute(&mut *db)
            .await?;
        for (code, subject) in subjects {
            sqlx::query("INSERT INTO subjects (id, department_id, code, name) VALUES (?, ?, ?, ?)")
                .bind(new_id())
                .bind(&id)
                .bind(code)
                .bind(subject)
                .execute(&mut *db)
                .await?;
        }
    }
    let class = new_id();
    sqlx::query("INSERT INTO classes (id, name, level) VALUES (?, 'Grade 10', 10)")
        .bind(&class)
        .execute(&mut *db)
        .await?;
    for section in ["A", "B"] {
        let id = new_id();
        sqlx::query("INSERT INTO sections (id, class_id, name) VALUES (?, ?, ?)")
            .bind(&id)
            .bind(&class)
            .bind(section)
            .execute(&mut *db)
            .await?;
        for (_, given_name, family_name, gender, month, day) in STUDENTS.iter().filter(|student| student.0 == section) {
            let born = Month::try_from(*month).and_then(|month| Date::from_calendar_date(now.year() - 15, month, *day));
            let student = NewStudent {
                admission_no: None,
                given_name: (*given_name).to_owned(),
                family_name: (*family_name).to_owned(),
                date_of_birth: born.ok(),
                gender: Some(*gender),
                section_id: Some(id.clone()),
                enrolled_on: None,
            };
            students::insert(db, &student, now).await?;
        }
    }
    Ok(())
}

async fn academic_year(db: &mut SqliteConnection, year: i32) -> Result<String, StoreError> {
    let id = new_id();
    sqlx::query("INSERT INTO academic_years (id, name, starts_on, ends_on, is_current) VALUES (?, ?, ?, ?, 1)")
        .bind(&id)
        .bind(year.to_string())
        .bind(day(year, Month::January, 1))
        .bind(day(year, Month::December, 31))
        .execute(db)
        .await?;
    Ok(id)
}

fn day(year: i32, month: Month, day: u8) -> String {
    format!("{year:04}-{:02}-{day:02}", u8::from(month))
}

fn new_id() -> String {
    Ulid::generate().to_string()
}
