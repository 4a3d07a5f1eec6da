-- The broker's store, schema version 2, as boardhand wrote it.
BEGIN TRANSACTION;
CREATE TABLE answers (
    verb     TEXT NOT NULL,
    tag      TEXT NOT NULL,
    payload  BLOB NOT NULL,
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (verb, tag)
);
INSERT INTO "answers" VALUES('submit','t-1',X'7B226F6B223A747275657D00FF',1);
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
INSERT INTO "artifacts" VALUES(1,1,0,'out/report.txt',5,'aa',NULL);
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
INSERT INTO "attempts" VALUES(1,1,'b1',6,'2026-01-01T00:00:00+00:00','2026-01-01T00:01:01+00:00','passed',1,NULL);
INSERT INTO "attempts" VALUES(2,1,'b2',3,'2026-01-01T00:00:00+00:00','2026-01-01T00:00:00+00:00','fault: it did not come up',0,NULL);
INSERT INTO "attempts" VALUES(2,2,'b1',7,'2026-01-01T00:00:00+00:00',NULL,NULL,0,NULL);
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
INSERT INTO "jobs" VALUES(1,'{"name":"build","labels":{"arch":["arm64","arm"],"memory_mb":">= 2048"},"board":null,"priority":0,"steps":[{"name":"","run":"make","timeout_s":null},{"name":"check","run":"make check","timeout_s":60.0}],"env":{"MODE":"0755"},"timeout_s":3600.0,"attempts":2,"queue_timeout_s":null}','build','passed',1,'b1',6,NULL,1,0,0,NULL,NULL,'2026-01-01T00:00:00+00:00','2026-01-01T00:00:00+00:00','2026-01-01T00:01:01.500000+00:00','[{"name":"step 1","exit_code":0,"took_s":0.0,"problem":null},{"name":"check","exit_code":0,"took_s":0.0,"problem":null}]','[]');
INSERT INTO "jobs" VALUES(2,'{"name":"build","labels":{"arch":["arm64","arm"],"memory_mb":">= 2048"},"board":null,"priority":0,"steps":[{"name":"","run":"make","timeout_s":null},{"name":"check","run":"make check","timeout_s":60.0}],"env":{"MODE":"0755"},"timeout_s":3600.0,"attempts":2,"queue_timeout_s":null}','build','running',0,'b1',7,'2026-01-01T01:00:00+00:00',2,1,0,NULL,'attempt 1 on b2: it did not come up','2026-01-01T00:00:00+00:00','2026-01-01T00:00:00+00:00',NULL,'[]','["b2"]');
INSERT INTO "jobs" VALUES(3,'{"name":"build","labels":{"arch":["arm64","arm"],"memory_mb":">= 2048"},"board":null,"priority":0,"steps":[{"name":"","run":"make","timeout_s":null},{"name":"check","run":"make check","timeout_s":60.0}],"env":{"MODE":"0755"},"timeout_s":3600.0,"attempts":2,"queue_timeout_s":null}','build','queued',0,NULL,NULL,NULL,0,0,0,'no known board has arch=arm64',NULL,'2026-01-01T00:00:00+00:00',NULL,NULL,'[]','[]');
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
INSERT INTO "log_chunks" VALUES(1,0,1,0,0,'check','it''s
');
INSERT INTO "log_chunks" VALUES(1,1,1,1,0,'check','50% é \ ✓
');
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO "meta" VALUES('session',1);
CREATE TABLE notices (
    job     INTEGER PRIMARY KEY REFERENCES jobs (number) ON DELETE CASCADE,
    done    INTEGER NOT NULL DEFAULT 0,              -- 1 when everybody was told, or it was given up
    tries   INTEGER NOT NULL DEFAULT 0,
    problem TEXT
);
INSERT INTO "notices" VALUES(1,0,2,'answered 500');
CREATE TABLE other_boots (board TEXT PRIMARY KEY);
INSERT INTO "other_boots" VALUES('b2');
CREATE TABLE timeline (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,       -- the order in which things were told
    job     INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    at      TEXT NOT NULL,
    what    TEXT NOT NULL
);
INSERT INTO "timeline" VALUES(1,1,1,'2026-01-01T00:00:00+00:00','leased b1, token 6');
INSERT INTO "timeline" VALUES(2,1,1,'2026-01-01T00:00:01.500000+00:00','b1 began to work');
CREATE TABLE tokens (board TEXT PRIMARY KEY, token INTEGER NOT NULL);
INSERT INTO "tokens" VALUES('b1',7);
INSERT INTO "tokens" VALUES('b2',3);
CREATE INDEX jobs_open ON jobs (ended_flag) WHERE ended_flag = 0;
CREATE INDEX jobs_state ON jobs (state, number);
CREATE UNIQUE INDEX attempts_lease ON attempts (board, token);
CREATE UNIQUE INDEX log_chunks_once ON log_chunks (job, attempt, seq, part);
CREATE INDEX timeline_job ON timeline (job);
CREATE INDEX notices_open ON notices (done) WHERE done = 0;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',3);
INSERT INTO "sqlite_sequence" VALUES('answers',1);
INSERT INTO "sqlite_sequence" VALUES('timeline',2);
COMMIT;
PRAGMA user_version = 2;
