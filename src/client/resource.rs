//! What the command line does with every kind of object: list, get, create, update, delete.

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection};
use super::output::{self, Column, Format};
use super::{DeleteArgs, ListArgs, WriteArgs, confirm};

/// A kind of object.
#[derive(Debug)]
pub(super) struct Resource {
    /// What one of them is called.
    pub(super) noun: &'static str,
    /// Where they are, below `/api/v1/`.
    pub(super) collection: &'static str,
    /// What a list shows of them.
    pub(super) columns: &'static [Column],
}

impl Resource {
    /// Those that `args` and these filters ask for.
    pub(super) async fn find(
        &self,
        api: &Api,
        args: &ListArgs,
        filters: &[(&str, Option<&str>)],
    ) -> anyhow::Result<Vec<Value>> {
        let mut query: Vec<(&str, String)> = Vec::new();
        query.extend(args.search.clone().map(|text| ("search", text)));
        query.extend(filters.iter().filter_map(|(name, value)| Some((*name, (*value)?.to_owned()))));
        api.list(&[self.collection], &query, args.limit.map(|n| n as usize)).await
    }

    /// Lists.
    pub(super) async fn list(&self, args: &ListArgs, filters: &[(&str, Option<&str>)]) -> anyhow::Result<()> {
        let api = Api::connect(&args.connection)?;
        output::list(api.format, &self.find(&api, args, filters).await?, self.columns)
    }

    /// Shows one.
    pub(super) async fn get(&self, key: &str, connection: &Connection) -> anyhow::Result<()> {
        let api = Api::connect(connection)?;
        output::object(api.format, &api.get(&[self.collection, key], &[]).await?)
    }

    /// Makes one, and shows it.
    pub(super) async fn create(&self, body: &Value, how: &WriteArgs) -> anyhow::Result<()> {
        super::write(Method::POST, &[self.collection], Some(body), &how.write, &how.connection).await
    }

    /// Changes one, and shows it.
    pub(super) async fn update(&self, key: &str, body: &Value, how: &WriteArgs) -> anyhow::Result<()> {
        super::write(Method::PATCH, &[self.collection, key], Some(body), &how.write, &how.connection).await
    }

    /// Removes one, after asking.
    pub(super) async fn delete(&self, key: &str, args: &DeleteArgs) -> anyhow::Result<()> {
        let (noun, id) = (self.noun, &args.id);
        let api = Api::connect(&args.connection)?;
        if !args.write.dry_run {
            confirm(&format!("Delete the {noun} {id}?"), args.yes)?;
        }
        let answer = api.write(Method::DELETE, &[self.collection, key], None, &args.write).await?;
        match (api.format, answer) {
            (Format::Json, Value::Null) => output::json(&json!({ "deleted": id })),
            (Format::Json, answer) => output::json(&answer),
            (Format::People, _) if args.write.dry_run => output::line(&format!("{noun} {id} can be deleted")),
            (Format::People, _) => output::line(&format!("deleted the {noun} {id}")),
        }
    }
}
