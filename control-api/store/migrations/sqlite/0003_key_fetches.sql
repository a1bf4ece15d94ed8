-- How fetching each issuer's keys went; what was fetched is in token_issuers.

CREATE TABLE key_fetches (
    issuer TEXT NOT NULL PRIMARY KEY,
    tried_at_ms INTEGER NOT NULL,
    -- When keys were last read; they may be the same as before.
    fetched_at_ms INTEGER,
    failures INTEGER NOT NULL,
    error TEXT
) STRICT, WITHOUT ROWID;
