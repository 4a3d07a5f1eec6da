"""What a start of the power service finds: feeds that cannot be read or disagree, operations that were cut short."""

from collections.abc import Awaitable

from agent.power.boards import BoardEntry
from agent.power.feed import FeedKind, OutletRef
from agent.power.journal import Journal, OpenOperation
from agent.power.operation import interrupted
from agent.power.outcomes import FindingKind, StartFinding
from agent.power.readings import Readings
from wire.phases import Power


def look_at(board: BoardEntry, readings: Readings) -> StartFinding | None:
    """What the first read-back of a board says that somebody should know."""
    power = readings.feed_power(board)
    error = readings.problem(board)
    if error is not None:
        return StartFinding(FindingKind.UNREADABLE, board.name, power, error.message, error)
    states = {ref: readings.power.get(ref, Power.UNKNOWN) for ref in board.refs}
    if board.feed.kind is FeedKind.UNSAID and {Power.ON, Power.OFF} <= set(states.values()):
        what = ", ".join(f"{ref} is {state}" for ref, state in states.items())
        message = f"{board.name}: {what}; switch the board on or off, or say in feed_is how its outlets hang together"
        return StartFinding(FindingKind.SPLIT, board.name, power, message)
    return None


def close_interrupted(
    operation: OpenOperation, board: BoardEntry | None, readings: Readings, journal: Journal, wall: float
) -> tuple[Awaitable[None], StartFinding]:
    """The end of an operation that the last agent did not live to write: what goes into the journal, and what is
    told. `board` is None where its feed is no longer in the settings, or it was an outlet without a board."""
    power = Power.UNKNOWN if board is None else readings.feed_power(board)
    ref = OutletRef(operation.board, "") if board is None else board.refs[0]
    error = interrupted(ref, operation.action, operation.board, power)
    closing = journal.end(operation.id, wall=wall, power=power, error=error, off_since={})
    finding = StartFinding(
        FindingKind.INTERRUPTED, operation.board, power, str(error), error.info(), operation.id, operation.action
    )
    return closing, finding
