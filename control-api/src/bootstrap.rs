//! What the first start of a control plane makes: the super-admin token, the tokens of nodes and of instances of the app,
//! the key that signs contexts.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schoolgate_config::model::ContextKeyState;
use schoolgate_config::seal::Keeper;
use schoolgate_config::time::new_ulid;
use schoolgate_store::{Actor, Store, StoreError, Token, TokenKind};

use crate::context_keys;
use crate::jwks::jwks;
use crate::operation::permission::Role;
use crate::operation::tokens::new_secret;

/// The file of the super-admin token, in the data directory.
pub const ADMIN_TOKEN: &str = "admin.token";
/// The file of the token that proxies follow the feed with, in the data directory.
pub const NODE_TOKEN: &str = "node.token";
/// The file of the token that instances of the school app report with, in the data directory.
pub const INSTANCE_TOKEN: &str = "instance.token";
/// The file of the public keys that verify `X-Tenant-Context`, in the data directory.
pub const JWKS: &str = "run/jwks.json";

/// Why the first start did not come to its end. A later start does what is missing.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("{path} cannot be written: {source}; is the data directory writable for this user?")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes what is missing: tokens in files that only their owner can read (mode 0600), and an active context key. A
/// super-admin token is made only while the store has no token at all: one that was deleted stays deleted.
///
/// # Errors
/// [`BootstrapError`] names the file.
pub async fn bootstrap(store: &Store, keeper: &Keeper, data_dir: &Path) -> Result<(), BootstrapError> {
    let tokens = store.tokens().await?;
    if !tokens.iter().any(|token| token.kind == TokenKind::Operator) {
        issue(store, TokenKind::Operator, &data_dir.join(ADMIN_TOKEN)).await?;
    }
    // Whoever lost the node token needs a new one to add a proxy; the old one goes on working.
    let node_token = data_dir.join(NODE_TOKEN);
    if !tokens.iter().any(|token| token.kind == TokenKind::Node) || !node_token.exists() {
        issue(store, TokenKind::Node, &node_token).await?;
    }
    let instance_token = data_dir.join(INSTANCE_TOKEN);
    if !tokens.iter().any(|token| token.kind == TokenKind::Instance) || !instance_token.exists() {
        issue(store, TokenKind::Instance, &instance_token).await?;
    }
    if !store.refresh().await?.table.context_keys().any(|key| key.state == ContextKeyState::Active) {
        make_context_key(store, keeper).await?;
    }
    let path = data_dir.join(JWKS);
    let keys = jwks(&store.refresh().await?.table).to_string();
    write_whole(&path, keys.as_bytes(), 0o644).map_err(|source| BootstrapError::File { path, source })
}

/// Makes a token and writes it to a file. The file comes first: a token in the store that nobody has is worth nothing.
async fn issue(store: &Store, kind: TokenKind, path: &Path) -> Result<(), BootstrapError> {
    let secret = new_secret(kind);
    write_whole(path, format!("{}\n", secret.text).as_bytes(), 0o600)
        .map_err(|source| BootstrapError::File { path: path.into(), source })?;
    let (name, role) = match kind {
        TokenKind::Operator => ("first-start", Role::SuperAdmin.as_str()),
        TokenKind::Node => ("proxies", "node"),
        TokenKind::Instance => ("school apps", "instance"),
    };
    let mut transaction = store.begin(Actor::system("first-start")).await?;
    let token = Token {
        id: secret.id,
        kind,
        name: name.to_owned(),
        role: role.to_owned(),
        scopes: Vec::new(),
        tenants: Vec::new(),
        networks: Vec::new(),
        secret_hash: secret.hash,
        created_at_ms: transaction.now_ms(),
        created_by: "first-start".to_owned(),
        expires_at_ms: None,
    };
    transaction.insert_token(&token).await?;
    let about = format!("token {}", token.id);
    transaction.commit("token.create", &about, serde_json::json!({ "role": role })).await?;
    tracing::info!("made a token ({role}) in {}", path.display());
    Ok(())
}

async fn make_context_key(store: &Store, keeper: &Keeper) -> Result<(), BootstrapError> {
    let mut transaction = store.begin(Actor::system("first-start")).await?;
    // Another process may have been first.
    if transaction.table().context_keys().any(|key| key.state == ContextKeyState::Active) {
        transaction.rollback().await;
        return Ok(());
    }
    let key = context_keys::first(keeper, transaction.now_ms());
    let kid = key.id.clone();
    transaction.insert(key).await?;
    transaction.commit("context_key.create", &format!("context key {kid}"), serde_json::Value::Null).await?;
    Ok(())
}

/// Writes a file whole or not at all, in place of one that is there.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let temporary = path.with_extension(format!("new-{}", new_ulid()));
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| std::fs::rename(&temporary, path)).and_then(|()| File::open(dir)?.sync_all());
    if placed.is_err() {
        // Best effort: the error that counts is the one before.
        let _ = std::fs::remove_file(&temporary);
    }
    placed
}
