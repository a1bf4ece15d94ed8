-- Instances that registered themselves as backends, and when they were last heard.

CREATE TABLE instances (
    pool TEXT NOT NULL,
    address TEXT NOT NULL,
    backend TEXT NOT NULL,
    -- The token that it registered with.
    token TEXT NOT NULL,
    heard_at_ms INTEGER NOT NULL,
    -- When it said goodbye; NULL: it has not.
    leaving_at_ms INTEGER,
    PRIMARY KEY (pool, address)
) STRICT, WITHOUT ROWID;
