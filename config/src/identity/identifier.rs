//! The ways a request names a tenant beside its host.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Headers, RequestFacts, VerifiedToken, query};
use crate::model::TenantId;
use crate::table::{Live, RoutingTable, TenantEntry};

/// A kind of identifier, in the order in which they select on a shared host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identifier {
    /// `X-Tenant-ID`: id or slug.
    Header,
    /// `X-Tenant-Slug`: slug.
    SlugHeader,
    /// `tenant` or `tenantId` of the query: id or slug.
    Query,
    /// A claim of a verified token: id or slug.
    Token,
    /// `/t/{slug}/…`: slug.
    Path,
}

impl Identifier {
    /// The name in metrics, events and explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::SlugHeader => "slug_header",
            Self::Query => "query",
            Self::Token => "token",
            Self::Path => "path",
        }
    }

    /// Whether only a caller that the zone trusts selects by it. A token has proved itself, and a path is what a visitor
    /// sees and shares, like a host.
    pub(super) const fn needs_trust(self) -> bool {
        matches!(self, Self::Header | Self::SlugHeader | Self::Query)
    }
}

/// A tenant named by one identifier of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'r> {
    /// By what.
    pub by: Identifier,
    /// As sent, decoded.
    pub value: Cow<'r, str>,
}

impl Named<'_> {
    /// Whom it names. Slugs are compared as written: one in another case is another slug.
    pub fn tenant<'t, L: Live>(&self, table: &'t RoutingTable<L>) -> Option<&'t Arc<TenantEntry<L>>> {
        if self.value.starts_with(TenantId::PREFIX) && self.value.as_bytes().get(TenantId::PREFIX.len()) == Some(&b'_')
        {
            if matches!(self.by, Identifier::SlugHeader | Identifier::Path) {
                return None;
            }
            // No slug has an underscore, so an id is never also one.
            let id: TenantId = self.value.parse().ok()?;
            return table.tenant(&id);
        }
        table.tenant_by_slug(&self.value)
    }
}

/// Every identifier of a request beside its host, in the order in which they select. An empty value names nobody.
pub(super) fn identifiers<'a, 'r, H: Headers + ?Sized, T: ?Sized>(
    request: &'a RequestFacts<'r, H, T>,
    token: Option<&'a VerifiedToken>,
    slug: Option<&'a str>,
) -> impl Iterator<Item = Named<'a>>
where
    'r: 'a,
{
    let lines = |by: Identifier, value: &'a [u8]| Named { by, value: String::from_utf8_lossy(value) };
    let ids = request.headers.tenant_ids().map(move |value| lines(Identifier::Header, value));
    let slugs = request.headers.tenant_slugs().map(move |value| lines(Identifier::SlugHeader, value));
    let query = query::tenants(request.query).map(|value| Named { by: Identifier::Query, value });
    let names = token.into_iter().flat_map(|token| token.names.iter());
    let claims = names.map(|name| Named { by: Identifier::Token, value: Cow::Borrowed(&**name) });
    let path = slug.into_iter().map(|slug| Named { by: Identifier::Path, value: Cow::Borrowed(slug) });
    ids.chain(slugs).chain(query).chain(claims).chain(path).filter(|named| !named.value.is_empty())
}
