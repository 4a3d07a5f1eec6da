"""How many consoles are open, and of whom."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from broker.web.access import Person

MOST_CONSOLES = 200
MOST_OF_ONE = 12
"""Consoles that one person has open at once."""


class TooManyConsolesError(Exception):
    """More open consoles than there should be."""


class Consoles:
    """Counts those that are open."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self._open.total()

    @contextmanager
    def opened(self, who: Person) -> Iterator[None]:
        """One more console of `who`'s.

        Raises:
            TooManyConsolesError: he has enough, or all together have.
        """
        if self._open[who.name] >= MOST_OF_ONE:
            raise TooManyConsolesError(f"{who.name} has {MOST_OF_ONE} consoles open: close one")
        if self.count >= MOST_CONSOLES:
            raise TooManyConsolesError(f"{MOST_CONSOLES} consoles are open here: try later")
        self._open[who.name] += 1
        try:
            yield
        finally:
            self._open[who.name] -= 1
            if not self._open[who.name]:
                del self._open[who.name]
