-- `search_text` is the lower-cased names and admission number: SQLite folds only ASCII, the app folds all of Unicode.
CREATE TABLE students (
    id            TEXT    PRIMARY KEY,
    admission_no  TEXT    NOT NULL UNIQUE,
    given_name    TEXT    NOT NULL COLLATE NOCASE,
    family_name   TEXT    NOT NULL COLLATE NOCASE,
    date_of_birth TEXT,
    gender        TEXT    CHECK (gender IN ('female', 'male', 'other')),
    section_id    TEXT    REFERENCES sections (id),
    enrolled_on   TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    search_text   TEXT    NOT NULL
) STRICT;

CREATE INDEX students_by_name ON students (family_name, given_name, id);
CREATE INDEX students_by_section ON students (section_id);
