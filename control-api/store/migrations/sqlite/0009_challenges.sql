-- What proxies need to answer a certificate authority that checks whether a name is here.

CREATE TABLE acme_accounts (
    ca TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE challenges (
    name TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT, WITHOUT ROWID;
