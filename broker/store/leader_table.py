"""Who leads, as it stands in the database: SQL of `broker.store.leadership`. All locks are of the current schema
alone, so that two farms may share a database."""

_KEY = "hashtext(current_schema()::text)"
LEAD, FENCED, SETUP = 0x62684C31, 0x62684C32, 0x62684C33
"""The first halves of our advisory locks: nobody else's numbers, we hope ("bhL1" and following)."""

FENCE = f"SELECT pg_advisory_xact_lock_shared({FENCED}, {_KEY})"
"""Held by each transaction of the leader: no epoch can begin meanwhile."""
EPOCH = "SELECT epoch FROM boardhand_leader"

SET_UP = (
    f"SELECT pg_advisory_xact_lock({SETUP}, {_KEY})",
    "CREATE TABLE IF NOT EXISTS boardhand_leader (one BIGINT PRIMARY KEY, epoch BIGINT NOT NULL, name TEXT, host TEXT,\
 since TEXT)",
    "INSERT INTO boardhand_leader VALUES (1, 0, '', '', '') ON CONFLICT DO NOTHING",
)
TRY = f"SELECT pg_try_advisory_lock({LEAD}, {_KEY}) AS won"
ALONE = f"SELECT pg_advisory_xact_lock({FENCED}, {_KEY})"
BEGIN_EPOCH = (
    "UPDATE boardhand_leader SET epoch = epoch + 1, name = %(name)s, host = %(host)s, since = %(since)s RETURNING epoch"
)
WHO = "SELECT name, host, since FROM boardhand_leader"

# A leader asks every BEAT_S; its connection lives on when the process hangs or its host stands still.
HANGING = (
    "SELECT l.pid FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid"  # noqa: S608  # our own numbers
    f" WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {LEAD}::oid"
    f" AND l.objid::bigint = {_KEY}::bigint & 4294967295"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND clock_timestamp() - a.state_change > %(stale_s)s * interval '1 second'"
)
END = "SELECT pg_terminate_backend(%(pid)s)"
