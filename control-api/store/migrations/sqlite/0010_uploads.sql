-- Certificates that operators brought, by the names they serve: a name that changes hands takes its certificate with it.

CREATE TABLE uploaded_names (
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (name, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX uploaded_names_by_fingerprint ON uploaded_names (fingerprint);

-- Certificates that were revoked. Those of a CA that speaks ACME are 'requested' until it has been told.
CREATE TABLE revocations (
    fingerprint TEXT NOT NULL PRIMARY KEY,
    issuer TEXT NOT NULL,
    names TEXT NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('requested', 'done')),
    -- The leaf, DER: what a CA wants to see.
    leaf BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    done_at_ms INTEGER,
    -- Why telling the CA failed the last time.
    error TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX revocations_requested ON revocations (at_ms) WHERE state = 'requested';
