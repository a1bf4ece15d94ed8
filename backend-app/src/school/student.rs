//! A student, and what must hold of one before they are enrolled.

use serde::Serialize;
use serde_json::{Map, Value};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, Month};

use super::FieldError;

/// How days are written, everywhere.
const DAY: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day]");

/// The longest name, in characters.
const MAX_NAME: usize = 100;

/// The longest admission number, in bytes.
const MAX_ADMISSION_NO: usize = 32;

/// A student of the school. Days are `YYYY-MM-DD`, the instant is RFC 3339.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Student {
    pub(crate) id: String,
    pub(crate) admission_no: String,
    pub(crate) given_name: String,
    pub(crate) family_name: String,
    pub(crate) date_of_birth: Option<String>,
    pub(crate) gender: Option<String>,
    pub(crate) section: Option<StudentSection>,
    pub(crate) enrolled_on: String,
    pub(crate) created_at: String,
}

/// Where a student is taught.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StudentSection {
    pub(crate) id: String,
    pub(crate) class: String,
    pub(crate) name: String,
}

/// Someone to be enrolled; every field is valid in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewStudent {
    /// `None`: the school's next.
    pub(crate) admission_no: Option<String>,
    pub(crate) given_name: String,
    pub(crate) family_name: String,
    pub(crate) date_of_birth: Option<Date>,
    pub(crate) gender: Option<Gender>,
    pub(crate) section_id: Option<String>,
    /// `None`: today.
    pub(crate) enrolled_on: Option<Date>,
}

/// As the school keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gender {
    Female,
    Male,
    Other,
}

impl Gender {
    /// As it is stored and sent.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Female => "female",
            Self::Male => "male",
            Self::Other => "other",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Female, Self::Male, Self::Other].into_iter().find(|gender| gender.as_str() == text)
    }
}

impl NewStudent {
    /// Reads a student from a JSON object, as of `today`. A form is the same object with text in every field.
    ///
    /// # Errors
    /// Every field that is wrong, missing or unknown, not only the first.
    pub(crate) fn parse(object: &Map<String, Value>, today: Date) -> Result<Self, Vec<FieldError>> {
        let mut fields = Fields { object, known: Vec::new(), errors: Vec::new() };
        let earliest = Date::from_calendar_date(1900, Month::January, 1).unwrap_or(Date::MIN);
        let latest_enrolment = today.saturating_add(time::Duration::days(366));
        let given_name = fields.required("given_name", name);
        let family_name = fields.required("family_name", name);
        let admission_no = fields.optional("admission_no", admission_no);
        let date_of_birth = fields.optional("date_of_birth", |text| day(text, earliest, today));
        let gender = fields.optional("gender", |text| {
            Gender::parse(text).ok_or(("unknown_value", "Must be female, male or other.".to_owned()))
        });
        let section_id = fields.optional("section_id", |text| Ok(text.to_owned()));
        let enrolled_on = fields.optional("enrolled_on", |text| day(text, earliest, latest_enrolment));
        let errors = fields.finish();
        match (given_name, family_name) {
            (Some(given_name), Some(family_name)) if errors.is_empty() => {
                Ok(Self { admission_no, given_name, family_name, date_of_birth, gender, section_id, enrolled_on })
            }
            _ => Err(errors),
        }
    }

    /// What a search looks at.
    pub(crate) fn search_text(&self, admission_no: &str) -> String {
        search_text(&format!("{} {} {admission_no}", self.given_name, self.family_name))
    }
}

/// Text as it is searched: lower case, single spaces.
pub(crate) fn search_text(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// A day as it is stored and sent.
pub(crate) fn format_day(day: Date) -> String {
    format!("{:04}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day())
}

/// A code and a message.
type Fault = (&'static str, String);

/// The fields of an object, and what was found wrong with them.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Fields<'_> {
    fn required<T>(&mut self, field: &'static str, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        let errors = self.errors.len();
        let value = self.optional(field, parse);
        if value.is_none() && self.errors.len() == errors {
            self.errors.push(FieldError::new(field, "required", "Must be given."));
        }
        value
    }

    fn optional<T>(&mut self, field: &'static str, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        self.known.push(field);
        let parsed = match self.object.get(field) {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) if text.trim().is_empty() => return None,
            Some(Value::String(text)) => parse(text.trim()),
            Some(_) => Err(("wrong_type", "Must be text.".to_owned())),
        };
        parsed.map_err(|(code, message)| self.errors.push(FieldError::new(field, code, message))).ok()
    }

    fn finish(mut self) -> Vec<FieldError> {
        for field in self.object.keys().filter(|field| !self.known.contains(&field.as_str())) {
            self.errors.push(FieldError::new(field, "unknown_field", "There is no such field."));
        }
        self.errors
    }
}

fn name(text: &str) -> Result<String, Fault> {
    if text.chars().count() > MAX_NAME {
        return Err(("too_long", format!("Must have at most {MAX_NAME} characters.")));
    }
    if text.chars().any(char::is_control) {
        return Err(("invalid", "Must be on one line.".to_owned()));
    }
    Ok(text.to_owned())
}

fn admission_no(text: &str) -> Result<String, Fault> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'/' | b'.' | b'_');
    if text.len() <= MAX_ADMISSION_NO && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(("invalid", format!("Must be at most {MAX_ADMISSION_NO} letters, digits, or any of - / . _")))
    }
}

fn day(text: &str, earliest: Date, latest: Date) -> Result<Date, Fault> {
    let day = Date::parse(text, DAY).map_err(|_| ("invalid", "Must be a day, written as YYYY-MM-DD.".to_owned()))?;
    if day < earliest || day > latest {
        let (earliest, latest) = (format_day(earliest), format_day(latest));
        return Err(("out_of_range", format!("Must be between {earliest} and {latest}.")));
    }
    Ok(day)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::date;

    use super::*;

    fn parse(value: Value) -> Result<NewStudent, Vec<FieldError>> {
        NewStudent::parse(value.as_object().unwrap(), date!(2026 - 11 - 20))
    }

    fn faults(value: Value) -> Vec<(String, &'static str)> {
        parse(value).unwrap_err().into_iter().map(|error| (error.pointer, error.code)).collect()
    }

    #[test]
    fn two_names_are_enough() {
        let student = parse(json!({"given_name": " Asha ", "family_name": "Juma"})).unwrap();
        assert_eq!((student.given_name.as_str(), student.family_name.as_str()), ("Asha", "Juma"));
        assert_eq!((student.admission_no, student.section_id, student.enrolled_on), (None, None, None));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let found = faults(json!({
            "given_name": "", "family_name": 7, "date_of_birth": "2027-01-01", "gender": "f", "admission_no": "a b", "role/x": "admin",
        }));
        assert_eq!(
            found,
            [
                ("/given_name".to_owned(), "required"),
                ("/family_name".to_owned(), "wrong_type"),
                ("/admission_no".to_owned(), "invalid"),
                ("/date_of_birth".to_owned(), "out_of_range"),
                ("/gender".to_owned(), "unknown_value"),
                ("/role~1x".to_owned(), "unknown_field"),
            ]
        );
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        let found = faults(json!({"given_name": "A", "family_name": "B", "date_of_birth": "2010-02-30"}));
        assert_eq!(found, [("/date_of_birth".to_owned(), "invalid")]);
    }

    #[test]
    fn names_may_have_any_script_but_one_line() {
        assert!(parse(json!({"given_name": "أمينة", "family_name": "<script>"})).is_ok());
        assert_eq!(faults(json!({"given_name": "A\nB", "family_name": "C"})), [("/given_name".to_owned(), "invalid")]);
        let long = "x".repeat(MAX_NAME + 1);
        assert_eq!(faults(json!({"given_name": "A", "family_name": long})), [("/family_name".to_owned(), "too_long")]);
    }

    #[test]
    fn a_search_ignores_case_and_spacing() {
        assert_eq!(search_text("  ÇELİK   Ayşe "), search_text("çeli\u{307}k ayşe"));
    }
}
