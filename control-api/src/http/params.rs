//! Query parameters, strictly: one that nobody knows is an error, as an unknown field is.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::request::Parts as RequestParts;

use schoolgate_store::ListQuery;

use super::problem::Problem;
use super::{Api, Stop};

/// The query of a request, taken parameter by parameter.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// The parameters of a query.
    pub(crate) fn of(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// Takes a parameter.
    ///
    /// # Errors
    /// 400 when it is there twice.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(n, _)| n == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        if self.0.iter().any(|(n, _)| n == name) {
            return Err(Problem::bad_request(format!("the parameter {name} is given twice")));
        }
        Ok(Some(value))
    }

    /// Takes and parses a parameter.
    ///
    /// # Errors
    /// 400 names the parameter.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|e| Problem::bad_request(format!("the parameter {name}: {e}")))
    }

    /// Nothing else may be there.
    ///
    /// # Errors
    /// 400 names what is.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            Some((name, _)) => {
                let name: String = name.chars().take(60).collect();
                Err(Problem::bad_request(format!("there is no parameter {name} here")))
            }
            None => Ok(()),
        }
    }

    /// Takes what pages through any list: `cursor` (alias `after`) and `limit`.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn paging(&mut self) -> Result<(Option<String>, u32), Problem> {
        let cursor = match self.take("cursor")? {
            Some(cursor) => Some(cursor),
            None => self.take("after")?,
        };
        let limit = self.parse::<u32>("limit")?.unwrap_or(100);
        if !(1..=1_000).contains(&limit) {
            return Err(Problem::bad_request("the parameter limit: expected 1 to 1000"));
        }
        Ok((cursor, limit))
    }

    /// Takes what pages through and searches objects with keys `K`: paging, and `search` (alias `q`).
    ///
    /// # Errors
    /// 400.
    pub(crate) fn list<K: FromStr + Display>(&mut self) -> Result<ListQuery, Problem> {
        let (cursor, limit) = self.paging()?;
        let after = match cursor {
            Some(text) => Some(text.parse::<K>().map_err(|_| unreadable_cursor())?.to_string()),
            None => None,
        };
        let search = match self.take("search")? {
            Some(search) => Some(search),
            None => self.take("q")?,
        };
        Ok(ListQuery { after, limit, search: search.filter(|text| !text.is_empty()), ..ListQuery::default() })
    }
}

/// A cursor that no list gave. To begin at the first page instead would show a script the same objects for ever.
pub(crate) fn unreadable_cursor() -> Problem {
    Problem::bad_request("the parameter cursor: expected `next` of an answer")
}

impl FromRequestParts<Api> for Params {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut RequestParts, _: &Api) -> Result<Self, Stop> {
        Ok(Self::of(parts.uri.query()))
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::Slug;

    use super::*;

    #[test]
    fn a_parameter_that_is_unknown_or_given_twice_is_refused() {
        let mut params = Params::of(Some("limit=5&q=green%20hill"));
        let query = params.list::<Slug>().expect("both are known");
        assert_eq!((query.limit, query.search.as_deref()), (5, Some("green hill")));
        assert!(params.finish().is_ok());
        assert!(Params::of(Some("limit=1&limit=2")).paging().is_err());
        assert!(Params::of(Some("limit=0")).paging().is_err());
        assert!(Params::of(Some("limti=1")).finish().is_err());
        for cursor in ["cursor=", "cursor=Not%20a%20key", "after=%00"] {
            let refused = Params::of(Some(cursor)).list::<Slug>().expect_err("no list gave it");
            assert!(refused.message.contains("cursor"), "{}", refused.message);
        }
    }
}
