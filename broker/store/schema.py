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

VERSION_2 = """
CREATE TABLE timeline (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,       -- the order in which things were told
    job     INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    at      TEXT NOT NULL,
    what    TEXT NOT NULL
);
CREATE INDEX timeline_job ON timeline (job);
CREATE TABLE artifacts (
    job     INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    n       INTEGER NOT NULL,                        -- the board's own count; also the name of the stored file
    name    TEXT NOT NULL,                           -- as the board says: never used as a path by the broker
    size    INTEGER NOT NULL,
    sha256  TEXT,
    problem TEXT,                                    -- why it is not there, or not whole
    PRIMARY KEY (job, attempt, n)
);
CREATE TABLE notices (
    job     INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
    done    INTEGER NOT NULL DEFAULT 0,              -- 1 when everybody was told, or it was given up
    tries   INTEGER NOT NULL DEFAULT 0,
    problem TEXT
);
CREATE INDEX notices_open ON notices (done) WHERE done = 0;
CREATE TABLE other_boots (board TEXT PRIMARY KEY);   -- may be up in a boot that a job brought
"""

VERSION_3 = """
ALTER TABLE jobs ADD COLUMN submitter TEXT NOT NULL DEFAULT '';
CREATE TABLE boots (
    number INTEGER PRIMARY KEY AUTOINCREMENT,        -- the order in which they were seen
    board  TEXT NOT NULL,
    took_s REAL NOT NULL,                            -- from its wake until it was ready
    at     TEXT NOT NULL
);
CREATE INDEX boots_board ON boots (board, number);
"""

VERSION_4 = """
CREATE TABLE leases (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,       -- 'lease-<number>', from the same count as the jobs
    holder  TEXT NOT NULL,
    needs   TEXT NOT NULL,                           -- {"board", "wants": [[label, sign, values]]} as JSON
    lasts_s REAL NOT NULL,
    asked   TEXT NOT NULL,
    comment TEXT NOT NULL,
    wake    INTEGER NOT NULL,                        -- 1: a board that sleeps is switched on for it
    off     INTEGER NOT NULL,                        -- 1: the board is switched off at the end
    stage   TEXT NOT NULL,
    open    INTEGER NOT NULL,                        -- 1 while something is still to be done about it
    board   TEXT,
    token   INTEGER,
    since   TEXT,
    expires TEXT,                                    -- RFC 3339
    ended   TEXT,
    reason  TEXT,
    woken   INTEGER NOT NULL,                        -- 1: needs no switching on by us any more
    closing INTEGER NOT NULL                         -- 1: has ended, its board is still to be switched off
);
CREATE INDEX leases_open ON leases (open) WHERE open = 1;
"""

VERSION_5 = """
CREATE TABLE meetings (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,       -- the order in which they were sent
    job     INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,  -- the group's own
    attempt INTEGER NOT NULL,
    board   TEXT NOT NULL,
    call    TEXT NOT NULL,                           -- the board's own name for it
    text    TEXT NOT NULL,
    UNIQUE (job, attempt, board, call)
);
"""

VERSION_6 = """
CREATE TABLE board_health (
    board    TEXT PRIMARY KEY,
    state    TEXT NOT NULL,
    since    TEXT NOT NULL,
    failures INTEGER NOT NULL,                       -- in a row
    boots    TEXT NOT NULL,                          -- seconds that its cold boots took, as a JSON list
    passed   TEXT,                                   -- when it was last trusted anew
    job      TEXT,                                   -- its health job, the last or the one that runs
    why      TEXT NOT NULL,
    evidence TEXT NOT NULL                           -- of its failures, as JSON
);
"""

MIGRATIONS = (VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6)
