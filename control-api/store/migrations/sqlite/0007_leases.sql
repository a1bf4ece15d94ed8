-- Named rights to act, held by one process at a time.

CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    -- NULL when it was given back.
    holder TEXT,
    -- Raised whenever the lease changes hands, never lowered: what an earlier holder still writes is refused by it.
    fence INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
