"""How long each board takes from its wake until it is ready, from its last boots. Pure: no I/O, no clock."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from broker.farm_view import BoardPicture

KEPT_BOOTS = 16
"""Boots remembered per board: enough for a median that one bad boot does not move, few enough to follow a change."""
FIRST_GUESS_S = 60.0
"""For a farm in which no boot was measured yet."""
SPREADS = 3.0
"""How many spreads (median absolute deviations) a wake comes early: 3 cover about 95 % of boots that scatter evenly."""
SURE_SHARE = 0.1
"""A board whose boots hardly scatter is woken this share of its boot time early all the same."""


@dataclass(slots=True)
class WakeForecast:
    """Boots in, boot times out. Seconds throughout; `now` is monotonic."""

    _asleep: set[str] = field(default_factory=set)
    _began: dict[str, float] = field(default_factory=dict)
    _took: dict[str, deque[float]] = field(default_factory=dict)

    def restore(self, boots: Mapping[str, Iterable[float]]) -> None:
        """Boot times that were measured before our start, oldest first."""
        for board, took in boots.items():
            self._took[board] = deque(took, maxlen=KEPT_BOOTS)

    def look(self, picture: BoardPicture, now: float) -> float | None:
        """Take note of a board's phase. Returns how long its boot took when it has just become ready.

        A boot counts only where it was seen whole: from sleep, without a fault or an absent agent between.
        """
        board = picture.name
        if picture.asleep:
            self._asleep.add(board)
            self._began.pop(board, None)
        elif picture.coming_up:
            if board in self._asleep:
                self._began[board] = now
            self._asleep.discard(board)
        elif picture.ready:
            self._asleep.discard(board)
            began = self._began.pop(board, None)
            if began is not None:
                self._took.setdefault(board, deque(maxlen=KEPT_BOOTS)).append(now - began)
                return now - began
        elif picture.out_of_service is not None:
            self._asleep.discard(board)
            self._began.pop(board, None)
        return None

    def forget(self) -> None:
        """The line broke: boots under way were not seen whole."""
        self._asleep.clear()
        self._began.clear()

    def typical_s(self, board: str) -> float | None:
        """The median of its boots, or None when none was measured."""
        took = self._took.get(board)
        return median(took) if took else None

    def lead_s(self, board: str) -> float:
        """How long before it is needed the board must be woken: its median boot and `SPREADS` spreads."""
        took = self._took.get(board)
        if not took:
            known = [median(boots) for boots in self._took.values() if boots]
            return max(known, default=FIRST_GUESS_S)
        middle = median(took)
        spread = median(abs(one - middle) for one in took)
        return middle + max(SPREADS * spread, SURE_SHARE * middle)
