-- What is known of each domain beside what is published of it; kept in step with `domains` by every transaction.

CREATE TABLE domain_checks (
    name TEXT NOT NULL PRIMARY KEY,
    -- When to look again; NULL: when somebody asks.
    next_check_ms INTEGER,
    checked_at_ms INTEGER,
    -- What the checks remember, and what the last one found; JSON.
    life TEXT NOT NULL,
    findings TEXT NOT NULL,
    -- Raised by every write, so that of two checks at once only one is saved.
    turn INTEGER NOT NULL
) STRICT;
CREATE INDEX domain_checks_due ON domain_checks (next_check_ms) WHERE next_check_ms IS NOT NULL;
INSERT INTO domain_checks (name, next_check_ms, life, findings, turn) SELECT name, 0, 'null', '[]', 0 FROM domains;

-- A tenant asks for another tenant's domain; it goes with the domain.
CREATE TABLE domain_transfers (
    name TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    token TEXT NOT NULL,
    requested_at_ms INTEGER NOT NULL,
    requested_by TEXT NOT NULL,
    -- When its proof was seen first.
    proven_at_ms INTEGER
) STRICT, WITHOUT ROWID;

-- Names that were a tenant's and were given up.
CREATE TABLE released_names (
    name TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    released_at_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
