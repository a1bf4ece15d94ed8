-- One school's database. Days are ISO 8601 text (YYYY-MM-DD), instants are Unix milliseconds, ids are ULIDs.

-- Whose database this is. Compared with the tenant context whenever the file is opened.
CREATE TABLE meta (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    tenant_id  TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE academic_years (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    starts_on  TEXT    NOT NULL,
    ends_on    TEXT    NOT NULL,
    is_current INTEGER NOT NULL DEFAULT 0 CHECK (is_current IN (0, 1)),
    CHECK (starts_on < ends_on)
) STRICT;

CREATE UNIQUE INDEX one_current_academic_year ON academic_years (is_current) WHERE is_current = 1;

CREATE TABLE terms (
    id               TEXT PRIMARY KEY,
    academic_year_id TEXT NOT NULL REFERENCES academic_years (id),
    name             TEXT NOT NULL,
    starts_on        TEXT NOT NULL,
    ends_on          TEXT NOT NULL,
    CHECK (starts_on < ends_on),
    UNIQUE (academic_year_id, name)
) STRICT;

CREATE TABLE departments (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE subjects (
    id            TEXT PRIMARY KEY,
    department_id TEXT NOT NULL REFERENCES departments (id),
    code          TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL
) STRICT;

CREATE INDEX subjects_by_department ON subjects (department_id);

-- A grade; `level` orders them.
CREATE TABLE classes (
    id    TEXT    PRIMARY KEY,
    name  TEXT    NOT NULL UNIQUE,
    level INTEGER NOT NULL UNIQUE
) STRICT;

CREATE TABLE sections (
    id       TEXT PRIMARY KEY,
    class_id TEXT NOT NULL REFERENCES classes (id),
    name     TEXT NOT NULL,
    UNIQUE (class_id, name)
) STRICT;
