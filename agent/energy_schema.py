"""The tables of metering, in the agent's state file."""

ENERGY_SCHEMA = """
CREATE TABLE energy_board (
    board TEXT PRIMARY KEY,
    since TEXT NOT NULL,
    until TEXT NOT NULL,
    counter_wh REAL
) WITHOUT ROWID;
CREATE TABLE energy_total (
    board TEXT NOT NULL,
    state TEXT NOT NULL,
    measured_s REAL NOT NULL,
    unmeasured_s REAL NOT NULL,
    wh REAL NOT NULL,
    PRIMARY KEY (board, state)
) WITHOUT ROWID;
CREATE TABLE energy_bucket (
    board TEXT NOT NULL,
    length_s INTEGER NOT NULL,
    start_s INTEGER NOT NULL,
    state TEXT NOT NULL,
    measured_s REAL NOT NULL,
    unmeasured_s REAL NOT NULL,
    wh REAL NOT NULL,
    PRIMARY KEY (board, length_s, start_s, state)
) WITHOUT ROWID;
"""
"""`wh` was measured in `measured_s`. `length_s` is 3600 or 86400, `start_s` seconds since the epoch."""
