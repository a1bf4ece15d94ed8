//! The school: who learns there, in which class. Rules only; no HTTP, no SQL.

pub(crate) mod class;
pub(crate) mod enrolment;
pub(crate) mod student;

use serde::Serialize;

pub(crate) use self::class::{Class, Section};
pub(crate) use self::student::{Gender, NewStudent, Student};

/// One field of a request that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// Where in the document (RFC 6901).
    pub(crate) pointer: String,
    /// What kind of trouble, for programs.
    pub(crate) code: &'static str,
    /// What to do about it, for people.
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn new(field: &str, code: &'static str, message: impl Into<String>) -> Self {
        let escaped = field.replace('~', "~0").replace('/', "~1");
        let pointer = if escaped.is_empty() { String::new() } else { format!("/{escaped}") };
        Self { pointer, code, message: message.into() }
    }
}

/// The school at a glance.
#[derive(Debug)]
pub(crate) struct Overview {
    /// The current academic year, if one is set.
    pub(crate) academic_year: Option<AcademicYear>,
    pub(crate) students: i64,
    pub(crate) classes: i64,
    pub(crate) sections: i64,
    pub(crate) departments: i64,
    pub(crate) subjects: i64,
}

/// A year of teaching; days are `YYYY-MM-DD`.
#[derive(Debug)]
pub(crate) struct AcademicYear {
    pub(crate) name: String,
    pub(crate) starts_on: String,
    pub(crate) ends_on: String,
}
