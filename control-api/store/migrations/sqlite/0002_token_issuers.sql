-- Who may say in a token which tenant a caller belongs to, with the public keys that were last fetched.

CREATE TABLE token_issuers (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL,
    tenant TEXT
) STRICT;
