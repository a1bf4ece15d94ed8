-- What instances of the school app report of the schools they serve, and tokens for them.

CREATE TABLE app_reports (
    tenant TEXT NOT NULL PRIMARY KEY,
    users INTEGER NOT NULL,
    students INTEGER NOT NULL,
    storage_bytes INTEGER NOT NULL,
    instance TEXT NOT NULL,
    reported_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The same table with one more kind; a CHECK cannot be changed in place.
CREATE TABLE tokens_with_instances (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('operator', 'node', 'instance')),
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT NOT NULL,
    tenants TEXT NOT NULL,
    networks TEXT NOT NULL,
    -- SHA-256 of the secret.
    secret_hash BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at_ms INTEGER
) STRICT;
INSERT INTO tokens_with_instances (id, kind, name, role, scopes, tenants, networks, secret_hash, created_at_ms, created_by, expires_at_ms)
    SELECT id, kind, name, role, scopes, tenants, networks, secret_hash, created_at_ms, created_by, expires_at_ms FROM tokens;
DROP TABLE tokens;
ALTER TABLE tokens_with_instances RENAME TO tokens;
