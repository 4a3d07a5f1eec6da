"""Measured boots in the broker's store, for `broker.sleep.wake_forecast`."""

from broker.happenings import SaveBoot
from broker.sleep.wake_forecast import KEPT_BOOTS
from broker.store.sql import Connection


def save_boot(connection: Connection, boot: SaveBoot) -> None:
    """Keep a boot, and forget those of the board that are too old to count."""
    connection.execute(
        "INSERT INTO boots (board, took_s, at) VALUES (?, ?, ?)", (boot.board, boot.took_s, boot.at.isoformat())
    )
    connection.execute(
        "DELETE FROM boots WHERE board = ? AND number <="
        " (SELECT number FROM boots WHERE board = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
        (boot.board, boot.board, KEPT_BOOTS),
    )


def stored_boots(connection: Connection) -> dict[str, list[float]]:
    """How long the last boots of each board took, oldest first, in seconds."""
    found: dict[str, list[float]] = {}
    for row in connection.execute("SELECT board, took_s FROM boots ORDER BY number"):
        found.setdefault(row["board"], []).append(row["took_s"])
    return found
