//! The tables of `state.db`.
//!
//! ```text
//! budgets     one row per budget name: the latest time it was used at, and how many keys it has
//! keys        one row per (budget, key): where its admissions begin and end, its next running number; of a rate, the
//!             theoretical arrival time: microseconds (`spread`) and parts of one (`part`)
//! admissions  one row per admission that may still matter: (key, position) → time, running number
//! retired     keys whose admissions are all out of every window, waiting to be swept
//! subjects    one row per agent of whom something is remembered: its latest call, and the key of its digests
//! labels      one row per label of an agent, with the worlds it is in: 1 in fact, 2 with the shadow rules enforced
//! marks       one row per thing that a question of the policy asks about, in its order
//! approvals   one row per requested approval
//! votes       one row per approver that decided on one
//! ```
//!
//! Positions of one key are dense (`first..next`) and times never decrease with the position, so that "the admission
//! `limit` places back" is one primary-key lookup.

/// Version of the tables below, kept in `user_version`. A change of the tables raises it.
pub(crate) const SCHEMA: i64 = 2;

/// What makes the tables of version 2 of those of version 1. A new file has both.
pub(crate) const FROM_1_TO_2: &str = "
ALTER TABLE keys ADD COLUMN spread INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN part INTEGER NOT NULL DEFAULT 0;
CREATE TABLE subjects (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    latest   INTEGER NOT NULL,
    salt     BLOB NOT NULL
) STRICT;
CREATE TABLE labels (
    subject  INTEGER NOT NULL,
    label    TEXT NOT NULL,
    world    INTEGER NOT NULL,
    PRIMARY KEY (subject, label)
) STRICT, WITHOUT ROWID;
CREATE TABLE marks (
    subject  INTEGER NOT NULL,
    question TEXT NOT NULL,
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    world    INTEGER NOT NULL,
    amount   TEXT,
    value    BLOB,
    PRIMARY KEY (subject, question, number)
) STRICT, WITHOUT ROWID;
";

/// `application_id`: "gvst" as a big-endian number. Other `SQLite` files are refused.
pub(crate) const APPLICATION: i64 = 0x6776_7374;

/// Creates the tables of version 1. Times are microseconds since 1970.
pub(crate) const TABLES: &str = "
CREATE TABLE budgets (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    latest   INTEGER NOT NULL,
    keys     INTEGER NOT NULL CHECK (keys >= 0)
) STRICT;
CREATE TABLE keys (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    budget   INTEGER NOT NULL REFERENCES budgets (id),
    key      TEXT NOT NULL,
    first    INTEGER NOT NULL,
    next     INTEGER NOT NULL CHECK (next >= first),
    number   INTEGER NOT NULL,
    latest   INTEGER NOT NULL,
    UNIQUE (budget, key)
) STRICT;
CREATE INDEX keys_by_age ON keys (budget, latest);
CREATE TABLE admissions (
    key      INTEGER NOT NULL,
    position INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    PRIMARY KEY (key, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE retired (
    key      INTEGER PRIMARY KEY
) STRICT;
CREATE TABLE approvals (
    id       TEXT PRIMARY KEY,
    agent    TEXT NOT NULL,
    tenant   TEXT,
    session  TEXT NOT NULL,
    tool     TEXT NOT NULL,
    component BLOB NOT NULL,
    shown    TEXT NOT NULL,
    nonce    BLOB NOT NULL,
    binding  BLOB NOT NULL,
    epoch    BLOB NOT NULL,
    node     TEXT NOT NULL,
    roles    TEXT NOT NULL,
    need     INTEGER NOT NULL CHECK (need > 0),
    decision TEXT NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'consumed')),
    finished INTEGER,
    told     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX approvals_by_agent ON approvals (agent, state, expires);
CREATE INDEX approvals_by_state ON approvals (state, expires);
CREATE INDEX approvals_untold ON approvals (expires) WHERE state = 'expired' AND told = 0;
CREATE TABLE votes (
    approval  TEXT NOT NULL REFERENCES approvals (id) ON DELETE CASCADE,
    person    TEXT NOT NULL,
    approver  TEXT NOT NULL,
    verdict   TEXT NOT NULL CHECK (verdict IN ('approve', 'deny')),
    role      TEXT NOT NULL,
    signature BLOB NOT NULL,
    comment   TEXT NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (approval, person)
) STRICT, WITHOUT ROWID;
";
