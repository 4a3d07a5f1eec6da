"""How many boards may be woken now: the farm's booting cap, and each shelf's cap and spacing. Pure: no clock, no I/O.

A shelf is a value of a label, by default of `shelf`: boards that hang on one fuse carry the same value.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.jobs.labels import LabelValue

Labels = Mapping[str, LabelValue]


@dataclass(frozen=True, slots=True)
class Shelf:
    """A cap for boards that share a fuse. Without `value` it holds for every value of the label, each by itself."""

    label: str = "shelf"
    value: str | None = None
    booting_cap: int | None = None
    """So many of them may come up at once; None: as many as the farm's cap allows."""
    wake_spacing_s: float = 0.0
    """Least time between two wakes, for the inrush of their supplies."""


@dataclass(slots=True)
class WakeRoom:
    """Counts boards that come up, whoever switched them on. Times are monotonic seconds."""

    booting_cap: int
    shelves: tuple[Shelf, ...] = ()
    freed: bool = False
    """A board ceased to come up since this was last set to False: somebody may fit in now."""
    _booting: dict[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    _on_shelf: Counter[tuple[int, str]] = field(default_factory=Counter)
    _last_wake: dict[tuple[int, str], float] = field(default_factory=dict)

    @property
    def labels(self) -> set[str]:
        """Labels that this depends on."""
        return {shelf.label for shelf in self.shelves}

    @property
    def booting(self) -> set[str]:
        """Boards that come up."""
        return set(self._booting)

    @property
    def left(self) -> int:
        """Boards that the farm's cap still allows."""
        return self.booting_cap - len(self._booting)

    def note(self, board: str, labels: Labels, *, booting: bool) -> None:
        """Whether the board comes up. Saying the same twice changes nothing."""
        if booting == (board in self._booting):
            return
        if booting:
            keys = self._booting[board] = tuple(self._keys(labels))
            self._on_shelf.update(keys)
        else:
            self._on_shelf.subtract(self._booting.pop(board))
            self.freed = True

    def woke(self, board: str, labels: Labels, now: float) -> None:
        """A wake was sent."""
        for key in self._keys(labels):
            self._last_wake[key] = now
        self.note(board, labels, booting=True)

    def refusal(self, labels: Labels, now: float) -> str | None:
        """Why no board with these labels may be woken now, or None."""
        if self.left <= 0:
            return "as many boards as may are booting"
        for n, name in self._keys(labels):
            shelf = self.shelves[n]
            if shelf.booting_cap is not None and self._on_shelf[n, name] >= shelf.booting_cap:
                return f"as many boards as may are booting on {shelf.label} {name}"
            if now - self._last_wake.get((n, name), -1e9) < shelf.wake_spacing_s:
                return f"{shelf.label} {name} wakes one board every {shelf.wake_spacing_s:g} s"
        return None

    def _keys(self, labels: Labels) -> list[tuple[int, str]]:
        found = []
        for n, shelf in enumerate(self.shelves):
            have = labels.get(shelf.label)
            if have is not None and (shelf.value is None or str(have) == shelf.value):
                found.append((n, str(have)))
        return found
