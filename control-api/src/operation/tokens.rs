//! Tokens of the control API and of the feed.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, PoolId, TenantId};
use schoolgate_config::time::rfc3339;
use schoolgate_store::{Store, Token, TokenKind};

use super::document::{Errors, Networks, Place, Text, read, readable};
use super::instances;
use super::permission::{Operator, Permission, Role, Subject};
use super::{Done, Refusal, What, Work};

/// The role of instances of an app: none of an operator's.
const INSTANCE: &str = "instance";

/// What of a token an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct TokenInput {
    /// What people call it: who holds it, and where.
    name: Text<1, 100>,
    /// `super-admin`, `operator`, `support`, `auditor`, `tenant-admin` or `tenant-viewer`; or `instance`, for instances of
    /// an app that register themselves and report.
    #[schema(value_type = Role)]
    role: Text<1, 40>,
    /// What it is good for, within the role, such as `tenants:read`; empty: all.
    #[serde(default)]
    scopes: Vec<Text<1, 40>>,
    /// For which tenants; empty: all. Roles of tenants need one.
    #[serde(default)]
    tenants: Vec<TenantId>,
    /// Of the role `instance`: pools that it may register in; empty: all.
    #[serde(default)]
    pools: Vec<PoolId>,
    /// From which networks; empty: all.
    #[serde(default)]
    networks: Networks,
    /// When it ends, RFC 3339; absent: never.
    expires_at: Option<Text<1, 40>>,
}
readable!(TokenInput {
    name,
    role,
    scopes = Vec::new(),
    tenants = Vec::new(),
    pools = Vec::new(),
    networks = Networks::default(),
    expires_at,
});

/// A token as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    /// The part of it that is no secret.
    id: String,
    /// `operator`, `node` or `instance`.
    kind: &'static str,
    /// What people call it.
    name: String,
    /// The role of who holds it.
    role: String,
    /// What it is good for, within the role; empty: all.
    scopes: Vec<String>,
    /// For which tenants; empty: all.
    tenants: Vec<TenantId>,
    /// From which networks; empty: all.
    networks: Vec<String>,
    /// When it ends.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// Who made it.
    created_by: String,
    /// The whole token: shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

fn view(token: &Token, secret: Option<String>) -> TokenView {
    TokenView {
        id: token.id.clone(),
        kind: token.kind.as_str(),
        name: token.name.clone(),
        role: token.role.clone(),
        scopes: token.scopes.clone(),
        tenants: token.tenants.clone(),
        networks: token.networks.clone(),
        expires_at: token.expires_at_ms.map(rfc3339),
        created_at: rfc3339(token.created_at_ms),
        created_by: token.created_by.clone(),
        token: secret,
    }
}

/// A new token's public part and secret, and the two as its holder writes them.
pub(crate) struct NewSecret {
    /// The part that is no secret.
    pub(crate) id: String,
    /// SHA-256 of the secret.
    pub(crate) hash: [u8; 32],
    /// `sgk_<id>_<secret>`, `sgn_…` or `sgi_…`.
    pub(crate) text: String,
}

/// Draws a new token: 60 bits to find it by, 190 bits of secret.
pub(crate) fn new_secret(kind: TokenKind) -> NewSecret {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let random = SystemRandom::new();
    let draw = |length: usize| {
        let mut text = String::with_capacity(length);
        while text.len() < length {
            let mut bytes = [0; 64];
            random.fill(&mut bytes).expect("the system's random numbers are there");
            // Those above 247 would make some letters more likely than others.
            let fair =
                bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
            text.extend(fair.take(length - text.len()));
        }
        text
    };
    let (id, secret) = (draw(10), draw(32));
    let text = format!("{}_{id}_{secret}", prefix(kind));
    NewSecret { hash: secret_hash(&secret), id, text }
}

/// What a token of this kind begins with.
pub(crate) const fn prefix(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Operator => "sgk",
        TokenKind::Node => "sgn",
        TokenKind::Instance => "sgi",
    }
}

/// What the store keeps of a secret. The secret is random and long, so one round of a plain hash is enough.
pub(crate) fn secret_hash(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// Makes a token, and shows its secret this once.
///
/// # Errors
/// [`Refusal::Invalid`] with everything that is wrong; [`Refusal::Forbidden`].
pub(crate) async fn create(work: &mut Work, body: &Value) -> Result<Done, Refusal> {
    work.operator.may_everywhere(Subject::Tokens.write())?;
    let mut errors = Errors::default();
    let input = read::<TokenInput>(body, &mut errors);
    let checked = input.map(|input| check(input, work, &mut errors));
    let (input, expires_at_ms) = errors.ok(checked).map_err(Refusal::Invalid)?;
    let kind = if input.role.0 == INSTANCE { TokenKind::Instance } else { TokenKind::Operator };
    let secret = new_secret(kind);
    let token = Token {
        id: secret.id,
        kind,
        name: input.name.0,
        role: input.role.0,
        scopes: input.scopes.into_iter().map(|scope| scope.0).chain(input.pools.iter().map(instances::scope)).collect(),
        tenants: input.tenants,
        networks: input.networks.0.iter().map(ToString::to_string).collect(),
        secret_hash: secret.hash,
        created_at_ms: work.transaction.now_ms(),
        created_by: work.operator.name.clone(),
        expires_at_ms,
    };
    work.transaction.insert_token(&token).await?;
    Ok(Done {
        what: What::Created,
        object: super::json(&view(&token, Some(secret.text))),
        version: None,
        path: format!("tokens/{}", token.id),
        action: "token.create".to_owned(),
        about: format!("token {}", token.id),
        summary: super::json(&view(&token, None)),
        names: Vec::new(),
        again: None::<DomainName>,
    })
}

fn check(input: TokenInput, work: &Work, errors: &mut Errors) -> (TokenInput, Option<i64>) {
    let is_instance = input.role.0 == INSTANCE;
    let role = (!is_instance).then(|| input.role.0.parse::<Role>()).transpose();
    let role =
        role.map_err(|message| errors.add_at("/role", "invalid", format!("{message}, {INSTANCE}"))).ok().flatten();
    if is_instance && !input.scopes.is_empty() {
        errors.add_at("/scopes", "invalid", "an instance has none: bind it to `pools`");
    }
    if !is_instance && !input.pools.is_empty() {
        errors.add_at("/pools", "invalid", format!("only the role {INSTANCE} is bound to pools"));
    }
    for (i, pool) in input.pools.iter().enumerate() {
        if work.transaction.table().pool(pool).is_none() {
            errors.add(&Place::root().member("pools").element(i), "not_found", "there is no such pool");
        }
    }
    for (i, scope) in input.scopes.iter().enumerate() {
        if Permission::of_scope(&scope.0).is_none() {
            let at = Place::root().member("scopes").element(i);
            errors.add(&at, "invalid", "expected a subject and an access, such as tenants:read");
        }
    }
    // What is narrowed cannot widen itself by making another.
    let own = &work.operator.scopes;
    if !own.is_empty() && (input.scopes.is_empty() || input.scopes.iter().any(|scope| !own.contains(&scope.0))) {
        errors.add_at("/scopes", "invalid", format!("this token can give its own scopes only: {}", own.join(", ")));
    }
    for (i, tenant) in input.tenants.iter().enumerate() {
        if work.transaction.table().tenant(tenant).is_none() {
            errors.add(&Place::root().member("tenants").element(i), "not_found", "there is no such tenant");
        }
    }
    if role.is_some_and(Role::is_of_tenants) && input.tenants.is_empty() {
        errors.add_at("/tenants", "missing", "this role is for some tenants: name them");
    }
    let expires_at_ms = input.expires_at.as_ref().and_then(|text| {
        let at = time::OffsetDateTime::parse(&text.0, &time::format_description::well_known::Rfc3339);
        let at = at.ok().and_then(|at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok());
        match at {
            None => errors.add_at("/expires_at", "invalid", "expected a time such as 2026-11-20T20:15:00Z (RFC 3339)"),
            Some(ms) if ms <= work.transaction.now_ms() => {
                errors.add_at("/expires_at", "invalid", "this is in the past")
            }
            Some(_) => {}
        }
        at
    });
    (input, expires_at_ms)
}

/// Removes a token: what it opened is closed at once.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`]; [`Refusal::Conflict`] for the token that asks.
pub(crate) async fn delete(work: &mut Work, id: &str) -> Result<Done, Refusal> {
    work.operator.may_everywhere(Subject::Tokens.write())?;
    if work.operator.token == id {
        return Err(Refusal::Conflict {
            code: "IN_USE",
            message: "a token cannot delete itself: use another, so that one is left".to_owned(),
            pointer: None,
        });
    }
    if !work.transaction.delete_token(id).await? {
        return Err(Refusal::not_found("token"));
    }
    Ok(Done {
        what: What::Removed,
        object: Value::Null,
        version: None,
        path: format!("tokens/{id}"),
        action: "token.delete".to_owned(),
        about: format!("token {id}"),
        summary: json!({}),
        names: Vec::new(),
        again: None,
    })
}

/// All tokens, without their secrets.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub(crate) async fn list(store: &Store, operator: &Operator) -> Result<Vec<TokenView>, Refusal> {
    operator.may_everywhere(Subject::Tokens.read())?;
    Ok(store.tokens().await?.iter().map(|token| view(token, None)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_secrets_differ_and_read_as_one_word() {
        let (a, b) = (new_secret(TokenKind::Operator), new_secret(TokenKind::Node));
        assert!(a.text.starts_with("sgk_") && b.text.starts_with("sgn_"));
        assert_ne!(a.id, b.id);
        assert_eq!(a.text.split('_').count(), 3);
        assert_eq!(secret_hash(a.text.rsplit('_').next().expect("a part")), a.hash);
    }
}
