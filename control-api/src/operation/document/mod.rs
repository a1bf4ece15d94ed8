//! Reading what an operator sent: strictly, and with everything that is wrong with it at once.
//!
//! serde stops at the first error and names no place. Here every field is read for itself, every error has the JSON
//! pointer (RFC 6901) of what it is about, and a field that nobody knows is an error with the nearest known name.

mod leaf;
mod merge;
mod model;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub(crate) use leaf::{Networks, Text};
pub(crate) use merge::merge_patch;

/// Errors kept of one document: enough to mend a form, too few to make an answer of megabytes.
const MOST_ERRORS: usize = 100;

/// What is wrong with one place of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where: a JSON pointer (RFC 6901).
    pub(crate) pointer: String,
    /// What kind of error: `missing`, `unknown_field`, `wrong_type`, `invalid`, `out_of_range`, `read_only`, `not_found`, …
    pub(crate) code: String,
    /// The error in words.
    pub(crate) message: String,
}

/// A place in a document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place(String);

impl Place {
    /// The whole document.
    pub(crate) fn root() -> Self {
        Self::default()
    }

    /// A member of the object here.
    pub(crate) fn member(&self, name: &str) -> Self {
        Self(format!("{}/{}", self.0, name.replace('~', "~0").replace('/', "~1")))
    }

    /// An element of the list here.
    pub(crate) fn element(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }
}

/// Everything found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    /// Adds an error about a place.
    pub(crate) fn add(&mut self, at: &Place, code: &str, message: impl Into<String>) {
        if self.0.len() < MOST_ERRORS && !self.0.iter().any(|e| e.pointer == at.0 && e.code == code) {
            self.0.push(FieldError { pointer: at.0.clone(), code: code.to_owned(), message: message.into() });
        }
    }

    /// Adds an error about a member of the document.
    pub(crate) fn add_at(&mut self, pointer: &str, code: &str, message: impl Into<String>) {
        self.add(&Place(pointer.to_owned()), code, message);
    }

    /// Whether nothing is wrong.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value`, if nothing is wrong and it could be read.
    pub(crate) fn ok<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// What can be read from a document.
pub(crate) trait Readable: Sized {
    /// Reads it. `None` comes with an error.
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self>;

    /// What it is when it is not there (or `null`). `None` comes with an error.
    fn absent(at: &Place, errors: &mut Errors) -> Option<Self> {
        errors.add(at, "missing", "this is needed");
        None
    }
}

impl<T: Readable> Readable for Option<T> {
    fn read(value: &Value, at: &Place, errors: &mut Errors) -> Option<Self> {
        T::read(value, at, errors).map(Some)
    }

    fn absent(_: &Place, _: &mut Errors) -> Option<Self> {
        Some(None)
    }
}

/// The members of one object, taken one after the other.
pub(crate) struct Fields<'a> {
    members: &'a Map<String, Value>,
    at: &'a Place,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The members of `value`, which must be an object.
    pub(crate) fn of(value: &'a Value, at: &'a Place, errors: &mut Errors) -> Option<Self> {
        match value {
            Value::Object(members) => Some(Self { members, at, known: Vec::new() }),
            other => {
                errors.add(at, "wrong_type", format!("expected an object, found {}", kind_of(other)));
                None
            }
        }
    }

    /// Reads a member; one that is absent or `null` is `default`, if that is given.
    pub(crate) fn take<T: Readable>(
        &mut self,
        name: &'static str,
        default: Option<T>,
        errors: &mut Errors,
    ) -> Option<T> {
        self.known.push(name);
        let at = self.at.member(name);
        match self.members.get(name) {
            Some(value) if !value.is_null() => T::read(value, &at, errors),
            _ => default.or_else(|| T::absent(&at, errors)),
        }
    }

    /// Complains about every member that was not taken.
    pub(crate) fn finish(self, errors: &mut Errors) {
        for name in self.members.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let nearest = self
                .known
                .iter()
                .map(|known| (distance(known, name), known))
                .min()
                .filter(|(distance, _)| *distance <= 2);
            let message = match nearest {
                Some((_, known)) => format!("there is no such field; did you mean `{known}`?"),
                None => format!("there is no such field; known are: {}", self.known.join(", ")),
            };
            errors.add(&self.at.member(name), "unknown_field", message);
        }
    }
}

/// Reads a whole document.
pub(crate) fn read<T: Readable>(value: &Value, errors: &mut Errors) -> Option<T> {
    let at = Place::root();
    if value.is_null() {
        errors.add(&at, "missing", "a JSON object is needed");
        return None;
    }
    T::read(value, &at, errors)
}

/// What a JSON value is, in words.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// How many letters must be changed, added or removed to get from one name to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    // Names longer than any of ours are near to none of them; this bounds the work that a client can ask for.
    if b.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Reads a struct member by member: `readable!(Profile { legal_name, motto = default, matches as "match" })`. A member
/// with a default may be absent; so may an `Option`.
macro_rules! readable {
    ($type:ty { $($name:ident $(as $wire:literal)? $(= $default:expr)?),* $(,)? }) => {
        impl $crate::operation::document::Readable for $type {
            fn read(
                value: &serde_json::Value,
                at: &$crate::operation::document::Place,
                errors: &mut $crate::operation::document::Errors,
            ) -> Option<Self> {
                let mut fields = $crate::operation::document::Fields::of(value, at, errors)?;
                $(let $name = fields.take(
                    $crate::operation::document::readable!(@wire $name $($wire)?),
                    $crate::operation::document::readable!(@default $($default)?),
                    errors,
                );)*
                fields.finish(errors);
                Some(Self { $($name: $name?),* })
            }
        }
    };
    (@wire $name:ident) => { stringify!($name) };
    (@wire $name:ident $wire:literal) => { $wire };
    (@default) => { None };
    (@default $default:expr) => { Some($default) };
}
pub(crate) use readable;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use schoolgate_config::model::Slug;

    #[derive(Debug, PartialEq)]
    struct School {
        slug: Slug,
        motto: Option<Text<1, 5>>,
        pupils: u32,
    }
    readable!(School { slug, motto, pupils = 7 });

    fn errors_of(value: &Value) -> Vec<(String, String)> {
        let mut errors = Errors::default();
        let read = read::<School>(value, &mut errors);
        let found = errors.ok(read).expect_err("something is wrong");
        found.into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let found = errors_of(&json!({"slug": "Not a slug", "motto": "too long", "pupils": -1, "sulg": 1, "a/b": 2}));
        let expected = [
            ("/slug", "invalid"),
            ("/motto", "too_long"),
            ("/pupils", "out_of_range"),
            ("/a~1b", "unknown_field"),
            ("/sulg", "unknown_field"),
        ];
        let mut found: Vec<_> = found.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(errors_of(&json!({})), vec![("/slug".to_owned(), "missing".to_owned())]);
        assert_eq!(errors_of(&json!([1]))[0].1, "wrong_type");
    }

    #[test]
    fn an_absent_member_and_null_are_the_same() {
        for body in [json!({"slug": "a"}), json!({"slug": "a", "motto": null, "pupils": null})] {
            let mut errors = Errors::default();
            let school = read::<School>(&body, &mut errors);
            let school = errors.ok(school).expect("nothing is wrong");
            assert_eq!((school.motto, school.pupils), (None, 7));
        }
    }

    #[test]
    fn a_misspelt_field_names_the_nearest() {
        let mut errors = Errors::default();
        read::<School>(&json!({"slug": "a", "pupil": 1}), &mut errors);
        assert!(errors.0[0].message.contains("`pupils`"), "{}", errors.0[0].message);
    }
}
