-- What happened that somebody should look at; and TXT values that our own DNS responder answers.

CREATE TABLE events (
    -- Never given twice, so that a cursor means the same after old events were forgotten.
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    -- When it happened; it may be recorded a while later.
    at_ms INTEGER NOT NULL,
    -- Such as `domain.proven`.
    kind TEXT NOT NULL,
    tenant TEXT,
    -- As in `audit`, such as `domain erp.greenhill.example`.
    object TEXT NOT NULL,
    summary TEXT NOT NULL,
    detail TEXT NOT NULL,
    -- What tells it from every other event, where the same may be reported twice.
    once TEXT UNIQUE
) STRICT;
CREATE INDEX events_by_kind ON events (kind, number);
CREATE INDEX events_by_tenant ON events (tenant, number) WHERE tenant IS NOT NULL;
CREATE INDEX events_by_object ON events (object, number);
CREATE INDEX events_by_age ON events (at_ms);

-- TXT values for DNS-01 challenges (RFC 8555 section 8.4); a name may have several at once.
CREATE TABLE dns_txt (
    -- Lower case, without a final dot.
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (name, value)
) STRICT, WITHOUT ROWID;
