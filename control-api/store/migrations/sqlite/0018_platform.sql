-- What holds for the platform as a whole: one row, or none where nothing was said.

CREATE TABLE platform (
    id TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    body ANY NOT NULL
) STRICT, WITHOUT ROWID;
