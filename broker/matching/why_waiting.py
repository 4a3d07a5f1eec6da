"""Why a job waits, said so that its user finds the typo, the board to wait for, or the person to ask. Pure."""

from collections.abc import Iterable, Sequence
from heapq import nsmallest

from broker.matching.board_pool import BoardPool, Entry
from broker.matching.standing import Standing
from broker.matching.waiting import Line, Needs, WaitingJobs

# Names in a reason: enough to recognise the shelf, short enough for a table.
SHOWN_NAMES = 4


def names_shown(names: Sequence[str], count: int) -> str:
    """`b1, b2, b3, b4 and 12 more`; `names` are the first of `count`."""
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown if count <= SHOWN_NAMES else f"{shown} and {count - SHOWN_NAMES} more"


def why_waits(line: Line, waiting: WaitingJobs, pool: BoardPool) -> str:
    """Why the jobs of this line have no board."""
    fitting = list(_fitting(line, waiting, pool))
    if not fitting:
        return what_is_missing(line.needs, pool)
    if line.starved is not None:
        return f"waits for its turn to wake a board: {line.starved}"
    in_service = [entry.name for entry in fitting if entry.standing is not Standing.OUT]
    if in_service:
        shown = names_shown(nsmallest(SHOWN_NAMES, in_service), len(in_service))
        return f"waits for {'one of ' if len(in_service) > 1 else ''}{shown} to be free"
    out = nsmallest(SHOWN_NAMES, fitting, key=lambda entry: entry.name)
    told = "; ".join(f"{entry.name}: {entry.why}" for entry in out)
    more = f"; and {len(fitting) - SHOWN_NAMES} more" if len(fitting) > SHOWN_NAMES else ""
    return f"no fitting board is in service: {told}{more}"


def can_ever(line: Line, waiting: WaitingJobs, pool: BoardPool) -> bool:
    """Whether a known board could do the jobs of this line."""
    return any(True for _ in _fitting(line, waiting, pool))


def _fitting(line: Line, waiting: WaitingJobs, pool: BoardPool) -> Iterable[Entry]:
    if line.needs.board is not None:
        entry = pool.entries.get(line.needs.board)
        return [entry] if entry is not None and line.wants_entry(entry) else []
    kinds = (kind for kind, lines in waiting.by_kind.items() if line in lines)
    return (pool.entries[name] for kind in kinds for name in kind.boards)


def what_is_missing(needs: Needs, pool: BoardPool) -> str:
    """Why no known board can ever do this."""
    if not pool.entries:
        return "no board is known yet: no agent has announced one"
    if needs.board is not None:
        entry = pool.entries.get(needs.board)
        if entry is None:
            return f"board {needs.board} is not known: no agent has announced it"
        missing = [str(want) for want in needs.wants if not want.met_by(entry.labels)]
        return f"board {needs.board} does not have {', '.join(missing)}"
    nowhere = [str(want) for want in needs.wants if not any(kind.has([want]) for kind in pool.kinds())]
    if nowhere:
        return f"no known board has {', '.join(nowhere)}"
    return f"no known board has all of {', '.join(map(str, needs.wants))} together"
