"""Cables that were moved, noticed in daily work: a board that is heard while its outlet is off hangs somewhere else.

No I/O and no clock. `now` is monotonic seconds.
"""

from dataclasses import dataclass, field

from wire.phases import Power

DRAIN_S = 30.0
"""After its power went, last packets, neighbours' answers and capacitors may still let a board be heard; a registration
that waited at the MQTT server, too."""
SIGNS_NEEDED = 2
"""One packet with a wrong sender is no moved cable."""
SIGNS_APART_S = 0.2
"""Nearer to each other they are one."""
BOOT_WITHIN_S = 600.0
"""A board that was switched on longer ago than this is not the reason why another one comes up now."""

LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class Moved:
    """What is to be said of a board: `what` and `do` of an alert, or that it is over, when both are empty."""

    board: str
    what: str = ""
    do: str = ""

    @property
    def over(self) -> bool:
        return not self.what


@dataclass(slots=True)
class _Board:
    feed: str
    power: Power = Power.UNKNOWN
    since: float = 0.0
    heard_on: bool = False
    """Since its power came."""
    signs: list[tuple[float, str, bool]] = field(default_factory=list)
    alerted: bool = False


class MovedCables:
    """Watches the boards of an agent."""

    def __init__(self) -> None:
        self._boards: dict[str, _Board] = {}

    def power(self, name: str, feed: str, power: Power, now: float) -> None:
        """The board's outlets, `feed` as people read them, were read back."""
        board = self._boards.setdefault(name, _Board(feed))
        if board.power is not power or board.feed != feed:
            # Found on, it may have been so for long, and is not why another one comes up now.
            found_on = power is Power.ON and board.power is Power.UNKNOWN
            board.feed, board.power, board.heard_on = feed, power, False
            board.since = LONG_AGO if found_on else now
            board.signs.clear()

    def forget(self, name: str) -> None:
        """There is no such board any more."""
        self._boards.pop(name, None)

    def heard(self, name: str, how: str, now: float, *, console: bool = False) -> list[Moved]:
        """The board was heard: `how` in words (`DHCP`, `a registration`). `console`: on its console, whose cable may be
        the one that was moved."""
        board = self._boards.get(name)
        if board is None or board.power is Power.UNKNOWN:
            return []
        if board.power is Power.ON:
            board.heard_on = board.heard_on or not console
            if board.alerted and not console:
                board.alerted = False
                return [Moved(name)]
            return []
        if now - board.since < DRAIN_S or (board.signs and now - board.signs[-1][0] < SIGNS_APART_S):
            return []
        board.signs.append((now, how, console))
        if len(board.signs) < SIGNS_NEEDED or board.alerted:
            return []
        board.alerted = True
        return [self._moved(name, board, now)]

    def _moved(self, name: str, board: _Board, now: float) -> Moved:
        words = " and ".join(dict.fromkeys(how for _, how, _ in board.signs))
        only_console = all(console for _, _, console in board.signs)
        cable = "console" if only_console else "power"
        text = f"{words} of {name} while its outlet {board.feed} is off"
        mute = [
            (other, its)
            for other, its in self._boards.items()
            if other != name and its.power is Power.ON and not its.heard_on and now - its.since <= BOOT_WITHIN_S
        ]
        if len(mute) == 1:
            other, its = mute[0]
            text += (
                f", and nothing of {other}, whose outlet {its.feed} is on: the {cable} cable of {name} hangs there now"
            )
        else:
            text += f": its {cable} cable was moved, or it has other power"
        return Moved(
            name, text, f"put the cable back, or write the new cabling into [boards.{name}]; see docs/learn.md"
        )
