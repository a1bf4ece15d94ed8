-- Things that take a while and are done step by step, such as moving a school to another pool.

CREATE TABLE operations (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'reverting', 'succeeded', 'reverted', 'failed')),
    -- Somebody asked for it to be undone.
    cancelled INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    -- What was asked for and how far it is, JSON.
    body TEXT NOT NULL
) STRICT;
CREATE INDEX operations_by_tenant ON operations (tenant, id);
-- One at a time for each tenant.
CREATE UNIQUE INDEX operations_unfinished ON operations (tenant) WHERE state IN ('running', 'reverting');
