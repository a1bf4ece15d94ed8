-- What the gateway is told to do, and who told it.
--
-- Objects are kept whole in `body` (JSON; MessagePack where there are keys), with columns beside it for what is
-- searched. References between objects have no foreign keys: the whole-graph check runs before every commit, over
-- everything a transaction does at once, and names all that is wrong; a foreign key would stop at the first, in an
-- order that matters to nobody. Every `version` is the number of the change that last wrote the row.

CREATE TABLE plans (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pools (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE zones (
    name TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL,
    slug TEXT NOT NULL UNIQUE,
    external_id TEXT UNIQUE,
    state TEXT NOT NULL,
    plan TEXT NOT NULL,
    pool TEXT NOT NULL,
    -- Slug, name and external id in lower case.
    search TEXT NOT NULL
) STRICT;

CREATE TABLE domains (
    name TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL,
    tenant TEXT NOT NULL
) STRICT;
CREATE INDEX domains_by_tenant ON domains (tenant, name);

CREATE TABLE routes (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL,
    tenant TEXT,
    pool TEXT
) STRICT;
CREATE INDEX routes_by_tenant ON routes (tenant, id);

CREATE TABLE certificates (
    fingerprint TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT;

CREATE TABLE context_keys (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT;

-- Names that need a certificate; kept in step with domains, zones and tenants by every transaction.
CREATE TABLE certificate_wants (
    name TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('queued', 'issued', 'failing')),
    fingerprint TEXT,
    attempts INTEGER NOT NULL,
    -- When the worker looks again: now, after a failure, or when the certificate is due for renewal.
    next_attempt_ms INTEGER NOT NULL,
    error TEXT,
    -- Raised by every write, so that of two workers only one can save what it did.
    turn INTEGER NOT NULL
) STRICT;
CREATE INDEX certificate_wants_due ON certificate_wants (next_attempt_ms);
CREATE INDEX certificate_wants_by_fingerprint ON certificate_wants (fingerprint) WHERE fingerprint IS NOT NULL;

-- One row for every commit, chained by hashes.
CREATE TABLE audit (
    number INTEGER NOT NULL PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    via TEXT NOT NULL,
    request_id TEXT,
    client_ip TEXT,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    summary TEXT NOT NULL,
    previous_hash BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_object ON audit (object, number);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

-- What a commit did to objects, in the wire form of a delta; commits that touched none have no row.
CREATE TABLE changes (
    number INTEGER NOT NULL PRIMARY KEY REFERENCES audit (number),
    changes BLOB NOT NULL
) STRICT;

-- What was published. A delta is kept while a proxy may still ask for it.
CREATE TABLE revisions (
    revision INTEGER NOT NULL PRIMARY KEY,
    created_at_ms INTEGER NOT NULL,
    change_from INTEGER NOT NULL,
    change_to INTEGER NOT NULL,
    objects INTEGER NOT NULL,
    actors TEXT NOT NULL,
    delta BLOB
) STRICT;
CREATE INDEX revisions_with_delta ON revisions (revision) WHERE delta IS NOT NULL;

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('operator', 'node')),
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

CREATE TABLE nodes (
    node TEXT NOT NULL PRIMARY KEY,
    seen_at_ms INTEGER NOT NULL,
    report TEXT
) STRICT, WITHOUT ROWID;

-- Answers given to requests with an Idempotency-Key.
CREATE TABLE answers (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    status INTEGER NOT NULL,
    etag TEXT,
    location TEXT,
    body BLOB NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT;
CREATE INDEX answers_by_age ON answers (created_at_ms);

-- Facts about this installation, such as that its demo schools were made once.
CREATE TABLE notes (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
