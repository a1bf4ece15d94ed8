-- What tenants used: sums over minutes, hours and days (UTC), as proxies flushed it.

-- `step_s` is the length of the time that begins at `at_s`, both in seconds. `usage` is the whole as JSON; the numbers beside
-- it are of the same, for sums over many rows.
CREATE TABLE usage_sums (
    step_s INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    at_s INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    limited INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    in_flight_peak INTEGER NOT NULL,
    usage TEXT NOT NULL,
    PRIMARY KEY (step_s, tenant, at_s)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_sums_by_time ON usage_sums (step_s, at_s);

-- The last flush counted of each start of each proxy: one that is sent again is known by its number.
CREATE TABLE usage_flushes (
    node TEXT NOT NULL,
    boot TEXT NOT NULL,
    number INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (node, boot)
) STRICT, WITHOUT ROWID;

-- What was used of quotas, by day or month of the tenant's own calendar; `period` is how many since January 1970.
CREATE TABLE quota_uses (
    quota TEXT NOT NULL,
    period INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    used INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, quota, period)
) STRICT, WITHOUT ROWID;
