-- Hosts that no tenant has, and that an operator does not want to be told of.

CREATE TABLE ignored_hosts (
    name TEXT NOT NULL PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL
) STRICT, WITHOUT ROWID;
