-- Certificates from a CA that speaks ACME: what waits, what is ordered, what the CA's limits leave.

-- Who is to make it: 'internal', 'acme'; NULL until the worker has said.
ALTER TABLE certificate_wants ADD COLUMN issuer TEXT;
-- Which CA made the one it has.
ALTER TABLE certificate_wants ADD COLUMN ca TEXT;
-- Wanted together with many others: they come after a single school that waits.
ALTER TABLE certificate_wants ADD COLUMN bulk INTEGER NOT NULL DEFAULT 0;
ALTER TABLE certificate_wants ADD COLUMN since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE certificate_wants ADD COLUMN not_after_ms INTEGER;
-- Why it waits or fails, for programs; who must act; a page of the CA that helps.
ALTER TABLE certificate_wants ADD COLUMN reason TEXT;
ALTER TABLE certificate_wants ADD COLUMN who_acts TEXT;
ALTER TABLE certificate_wants ADD COLUMN link TEXT;
-- The CA's renewal window (RFC 9773) as JSON, and when to ask for it again.
ALTER TABLE certificate_wants ADD COLUMN renewal TEXT;
ALTER TABLE certificate_wants ADD COLUMN renewal_ask_ms INTEGER;
CREATE INDEX certificate_wants_renewal ON certificate_wants (renewal_ask_ms) WHERE renewal_ask_ms IS NOT NULL;
CREATE INDEX certificate_wants_of_acme ON certificate_wants (next_attempt_ms) WHERE issuer = 'acme';
CREATE INDEX certificate_wants_expiring ON certificate_wants (not_after_ms) WHERE not_after_ms IS NOT NULL;

-- Open orders. The name is the key: there are never two for one.
CREATE TABLE acme_orders (
    name TEXT NOT NULL PRIMARY KEY,
    next_ms INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX acme_orders_next ON acme_orders (next_ms);

-- Our accounts, their keys sealed.
CREATE TABLE acme_credentials (
    ca TEXT NOT NULL PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How each CA is.
CREATE TABLE acme_authorities (
    ca TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Token buckets that mirror the CA's limits.
CREATE TABLE acme_buckets (
    ca TEXT NOT NULL,
    name TEXT NOT NULL,
    subject TEXT NOT NULL,
    tokens REAL NOT NULL,
    capacity REAL NOT NULL,
    per_ms INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (ca, name, subject)
) STRICT, WITHOUT ROWID;

-- Validations that failed within the last hour.
CREATE TABLE acme_failures (
    ca TEXT NOT NULL,
    name TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX acme_failures_of ON acme_failures (name, ca, at_ms);

-- Orders by result, since the store was made.
CREATE TABLE acme_totals (
    ca TEXT NOT NULL,
    result TEXT NOT NULL,
    orders INTEGER NOT NULL,
    PRIMARY KEY (ca, result)
) STRICT, WITHOUT ROWID;

-- When an order was last placed for each tenant: within a class the one served longest ago is next.
CREATE TABLE acme_shares (
    tenant TEXT NOT NULL PRIMARY KEY,
    served_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which revision holds a change.
CREATE INDEX revisions_by_change ON revisions (change_to);
