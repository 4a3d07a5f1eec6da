"""The broker's SQLite schema: script i brings version i to i + 1. A script that was released never changes."""

VERSION_1 = """
CREATE TABLE jobs (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,  -- 'job-<number>'; never given out twice, also after pruning
    spec         TEXT NOT NULL,                      -- JobSpec as JSON
    name         TEXT NOT NULL,
    state        TEXT NOT NULL,
    ended_flag   INTEGER NOT NULL,                   -- 1 when the state is final
    board        TEXT,
    token        INTEGER,
    expires      TEXT,                               -- end of its lease, RFC 3339
    attempt      INTEGER NOT NULL,
    start_faults INTEGER NOT NULL,
    run_faults   INTEGER NOT NULL,
    reason       TEXT,
    last_fault   TEXT,
    submitted    TEXT NOT NULL,
    started      TEXT,
    ended        TEXT,
    steps        TEXT NOT NULL,                      -- list of StepResult as JSON
    avoid        TEXT NOT NULL                       -- boards that failed it, as a JSON list
);
CREATE INDEX jobs_open ON jobs (ended_flag) WHERE ended_flag = 0;
CREATE INDEX jobs_state ON jobs (state, number);
CREATE TABLE attempts (
    job     INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    board   TEXT NOT NULL,
    token   INTEGER NOT NULL,
    began   TEXT NOT NULL,
    ended   TEXT,
    result  TEXT,
    told    INTEGER NOT NULL DEFAULT 0,              -- 1 when the board reported the result itself
    log_chunks INTEGER,                              -- pieces of output that the board says it sent
    PRIMARY KEY (job, attempt)
);
CREATE UNIQUE INDEX attempts_lease ON attempts (board, token);
CREATE TABLE log_chunks (
    job     INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    n       INTEGER NOT NULL,                        -- position in the job's whole log, from 0
    attempt INTEGER NOT NULL,
    seq     INTEGER NOT NULL,                        -- the board's own count, per attempt
    part    INTEGER NOT NULL,                        -- a long chunk is stored in parts that fit an answer
    step    TEXT,
    text    TEXT NOT NULL,
    PRIMARY KEY (job, n)
);
CREATE UNIQUE INDEX log_chunks_once ON log_chunks (job, attempt, seq, part);
CREATE TABLE tokens (board TEXT PRIMARY KEY, token INTEGER NOT NULL);
CREATE TABLE answers (
    verb     TEXT NOT NULL,
    tag      TEXT NOT NULL,
    payload  BLOB NOT NULL,
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (verb, tag)
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""

MIGRATIONS = (VERSION_1,)
