//! Create, replace, patch and delete, the same for every kind of object that an operator writes whole.

use serde_json::{Map, Value, json};

use schoolgate_config::model::TenantId;
use schoolgate_config::table::RoutingTable;
use schoolgate_store::{Aggregate, ListQuery, Page, Store, Stored};

use super::document::{Errors, Place, Readable, merge_patch, read};
use super::permission::Subject;
use super::{Done, Refusal, What, Work};

/// A top-level field that names another object, with the question whether there is one.
pub(crate) type Reference = (&'static str, fn(&RoutingTable, &str) -> bool);

/// A top-level field that a whole document may leave to us, with what it then is. `null` is not left to us.
pub(crate) type Preset = (&'static str, fn() -> Value);

/// A kind of object that an operator writes whole.
pub(crate) trait Resource: Aggregate {
    /// What of it an operator sets.
    type Input: Readable;
    /// What permission it takes.
    const SUBJECT: Subject;
    /// Where it is, below `/api/v1/`.
    const COLLECTION: &'static str;
    /// The field of a document that names the object.
    const KEY: &'static str;
    /// Fields of the view that no operator sets. One that comes back as it was read is not an error.
    const READ_ONLY: &'static [&'static str];
    /// Those of them that change by themselves: what a document says of these is passed over.
    const MOVING: &'static [&'static str] = &[];

    /// The object that an operator's input makes of what was there before. Adds what is wrong with the input.
    fn assemble(input: Self::Input, before: Option<&Self>, table: &RoutingTable, errors: &mut Errors) -> Self;

    /// The object as a document that an operator could have sent.
    fn document(&self) -> Value {
        super::json(self)
    }

    /// How the API shows it.
    fn view(stored: &Stored<Self>, table: &RoutingTable) -> Value;

    /// Top-level fields that name another object.
    fn references() -> &'static [Reference] {
        &[]
    }

    /// Top-level fields that are not empty when a whole document does not have them.
    fn presets() -> &'static [Preset] {
        &[]
    }

    /// Whose it is.
    fn tenant(&self) -> Option<TenantId> {
        None
    }

    /// Names whose certificates it asks for.
    fn names(&self, _: &RoutingTable) -> Vec<String> {
        Vec::new()
    }

    /// Whether everything else allows the object.
    ///
    /// # Errors
    /// A [`Refusal`] when not.
    fn check(&self, _: Option<&Self>, _: &RoutingTable) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Makes an object.
///
/// # Errors
/// [`Refusal::Invalid`] with everything that is wrong; [`Refusal::Conflict`]; [`Refusal::Forbidden`].
pub(crate) async fn create<R: Resource>(work: &mut Work, body: &Value) -> Result<Done, Refusal> {
    work.operator.may_everywhere(R::SUBJECT.write())?;
    let value = compose::<R>(work.transaction.table(), &whole::<R>(body), None)?;
    value.check(None, work.transaction.table())?;
    let stored = work.transaction.insert(value).await?;
    let summary = settable::<R>(&stored.value.document());
    Ok(done(work, &stored, What::Created, "create", summary))
}

/// Puts a whole new object in the place of one.
///
/// # Errors
/// As [`create`]; [`Refusal::NotFound`], [`Refusal::Stale`].
pub(crate) async fn replace<R: Resource>(work: &mut Work, key: &R::Key, body: &Value) -> Result<Done, Refusal> {
    let before = changeable::<R>(work, key).await?;
    let body = keyed::<R>(whole::<R>(body), key)?;
    write(work, before, &body, "replace").await
}

/// Changes some fields (RFC 7396).
///
/// # Errors
/// As [`replace`].
pub(crate) async fn patch<R: Resource>(work: &mut Work, key: &R::Key, body: &Value) -> Result<Done, Refusal> {
    let before = changeable::<R>(work, key).await?;
    let merged = patched::<R>(&before, work.transaction.table(), body)?;
    write(work, before, &merged, "update").await
}

/// Removes an object that nothing else needs.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`]. What still needs it is found by the commit.
pub(crate) async fn delete<R: Resource>(work: &mut Work, key: &R::Key) -> Result<Done, Refusal> {
    let before = changeable::<R>(work, key).await?;
    work.transaction.delete::<R>(key, None).await?;
    Ok(removed(&before.value))
}

/// One object.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn get<R: Resource>(
    store: &Store,
    operator: &super::permission::Operator,
    key: &R::Key,
) -> Result<Stored<R>, Refusal> {
    operator.may_everywhere(R::SUBJECT.read())?;
    let found = store.get::<R>(key).await?;
    found.ok_or_else(|| Refusal::not_found(&R::object_key(key).to_string()))
}

/// A part of the objects.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(crate) async fn list<R: Resource>(
    store: &Store,
    operator: &super::permission::Operator,
    query: &ListQuery,
) -> Result<Page<Stored<R>>, Refusal> {
    operator.may_everywhere(R::SUBJECT.read())?;
    Ok(store.list::<R>(query).await?)
}

/// The object with a key, if the operator may change it and knows its version.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`].
pub(crate) async fn changeable<R: Resource>(work: &mut Work, key: &R::Key) -> Result<Stored<R>, Refusal> {
    work.operator.may(R::SUBJECT.write())?;
    let found = work.existing::<R>(key).await?;
    match found.value.tenant() {
        Some(tenant) => work.operator.may_with(R::SUBJECT.write(), tenant)?,
        None => work.operator.may_everywhere(R::SUBJECT.write())?,
    }
    work.check_version(&found)?;
    Ok(found)
}

/// The document that a merge patch makes of an object.
///
/// # Errors
/// [`Refusal::Invalid`] when it is no patch, or touches what is read-only.
pub(crate) fn patched<R: Resource>(before: &Stored<R>, table: &RoutingTable, patch: &Value) -> Result<Value, Refusal> {
    if !patch.is_object() {
        return Err(Refusal::invalid("", "wrong_type", "a merge patch (RFC 7396) of an object is an object"));
    }
    let mut errors = Errors::default();
    let patch = without_read_only::<R>(patch, Some(&R::view(before, table)), &mut errors);
    errors.ok(Some(())).map_err(Refusal::Invalid)?;
    Ok(merge_patch(settable::<R>(&before.value.document()), &patch))
}

/// Writes what a whole document makes of an object.
///
/// # Errors
/// [`Refusal::Invalid`] with everything that is wrong.
pub(crate) async fn write<R: Resource>(
    work: &mut Work,
    before: Stored<R>,
    body: &Value,
    verb: &str,
) -> Result<Done, Refusal> {
    let value = compose(work.transaction.table(), body, Some(&before))?;
    value.check(Some(&before.value), work.transaction.table())?;
    save(work, before, value, verb).await
}

/// Saves an object in the place of what was there before.
///
/// # Errors
/// [`Refusal::Conflict`] when a unique value is taken.
pub(crate) async fn save<R: Resource>(
    work: &mut Work,
    before: Stored<R>,
    value: R,
    verb: &str,
) -> Result<Done, Refusal> {
    let summary = difference(&before.value.document(), &value.document());
    let stored = work.transaction.update(value, None).await?;
    Ok(done(work, &stored, What::Changed, verb, summary))
}

/// Reads a document into an object.
///
/// # Errors
/// [`Refusal::Invalid`] with everything that is wrong.
fn compose<R: Resource>(table: &RoutingTable, body: &Value, before: Option<&Stored<R>>) -> Result<R, Refusal> {
    let mut errors = Errors::default();
    let view = before.map(|before| R::view(before, table));
    let body = without_read_only::<R>(body, view.as_ref(), &mut errors);
    let value = read::<R::Input>(&body, &mut errors)
        .map(|input| R::assemble(input, before.map(|b| &b.value), table, &mut errors));
    // Asked of the document, not of what was read: a wrong name beside it should not hide that a pool is not there.
    for (field, is_there) in R::references() {
        if let Some(name) = body.get(field).and_then(Value::as_str)
            && !is_there(table, name)
        {
            errors.add(&Place::root().member(field), "not_found", format!("the {field} `{name}` does not exist"));
        }
    }
    errors.ok(value).map_err(Refusal::Invalid)
}

/// A document for a new or replaced object, with what it leaves to us.
fn whole<R: Resource>(body: &Value) -> Value {
    let Value::Object(members) = body else { return body.clone() };
    let mut members = members.clone();
    for (field, preset) in R::presets() {
        members.entry(*field).or_insert_with(preset);
    }
    Value::Object(members)
}

/// A document for the object at a path: the path says which one it is, and the document must not say another.
fn keyed<R: Resource>(body: Value, key: &R::Key) -> Result<Value, Refusal> {
    let Value::Object(mut members) = body else { return Ok(body) };
    let (field, key) = (R::KEY, key.to_string());
    match members.get(field) {
        None | Some(Value::Null) => {
            members.insert(field.to_owned(), key.into());
        }
        // What is no text, or no key, is told with everything else that is wrong.
        Some(Value::String(other)) if other.parse::<R::Key>().is_ok_and(|other| other.to_string() != key) => {
            return Err(Refusal::Elsewhere { field, here: key, there: other.clone() });
        }
        Some(_) => {}
    }
    Ok(Value::Object(members))
}

/// The body without what it may not set; complains when that is not as it was.
fn without_read_only<R: Resource>(body: &Value, now: Option<&Value>, errors: &mut Errors) -> Value {
    let Value::Object(members) = body else { return body.clone() };
    let mut rest = members.clone();
    rest.retain(|field, _| !R::MOVING.contains(&field.as_str()));
    for field in R::READ_ONLY {
        let Some(value) = rest.remove(*field) else { continue };
        let unchanged = now.is_some_and(|now| now.get(*field).unwrap_or(&Value::Null) == &value);
        if !unchanged {
            let message = match *field {
                "state" if R::SUBJECT == Subject::Tenants => {
                    "is changed by the actions suspend, resume, maintenance, archive and restore".to_owned()
                }
                _ => format!("`{field}` cannot be set"),
            };
            errors.add(&Place::root().member(field), "read_only", message);
        }
    }
    Value::Object(rest)
}

/// What of an object an operator sets.
fn settable<R: Resource>(value: &Value) -> Value {
    let Value::Object(members) = value else { return Value::Null };
    let kept = members.iter().filter(|(name, _)| !R::READ_ONLY.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Top-level fields that differ, with both values: what an audit line says of a change.
fn difference(before: &Value, after: &Value) -> Value {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let mut changed = Map::new();
    for name in before.keys().chain(after.keys()) {
        let (old, new) = (before.get(name).unwrap_or(&Value::Null), after.get(name).unwrap_or(&Value::Null));
        if old != new {
            changed.insert(name.clone(), json!({ "from": old, "to": new }));
        }
    }
    Value::Object(changed)
}

/// What a write of an object did.
pub(crate) fn done<R: Resource>(work: &Work, stored: &Stored<R>, what: What, verb: &str, summary: Value) -> Done {
    let table = work.transaction.table();
    Done {
        what,
        object: R::view(stored, table),
        version: Some(stored.version),
        path: format!("{}/{}", R::COLLECTION, stored.value.key()),
        action: format!("{}.{verb}", R::KIND.as_str()),
        about: R::object_key(&stored.value.key()).to_string(),
        summary,
        names: stored.value.names(table),
        again: None,
    }
}

/// What the removal of an object did.
pub(crate) fn removed<R: Resource>(value: &R) -> Done {
    Done {
        what: What::Removed,
        object: Value::Null,
        version: None,
        path: format!("{}/{}", R::COLLECTION, value.key()),
        action: format!("{}.delete", R::KIND.as_str()),
        about: R::object_key(&value.key()).to_string(),
        summary: value.document(),
        names: Vec::new(),
        again: None,
    }
}
