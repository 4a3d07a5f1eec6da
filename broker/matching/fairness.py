"""Who goes first among submitters whose jobs are equally urgent. Pure: no clock, no I/O.

The rule: whoever holds fewer boards now; among those, whoever used boards less of late; among those, the older job.
Use is board seconds, counted when a lease ends, and halves every hour: who filled the farm yesterday starts even today.
Nobody is ever refused a free board by it, it only orders those who want the same one.
"""

from dataclasses import dataclass, field

USE_HALF_LIFE_S = 3600.0
# Forward decay: new use is weighed up instead of old use down, so that the order needs no clock. Beyond this exponent
# all is scaled down, long before a float overflows at 1023.
MOST_HALVINGS = 256.0
# What is smaller than this share of a second is forgotten, so that submitters do not pile up for ever.
FORGOTTEN_S = 0.001

# A name is what its client says: one that gives another with each job must not fill the memory.
MOST_SUBMITTERS = 10_000

Share = tuple[int, float]
"""Sort key: boards held, weighed use."""


@dataclass(slots=True)
class Shares:
    """What each submitter holds and used. An empty name stands for all who gave none."""

    _held: dict[str, int] = field(default_factory=dict)
    _used: dict[str, float] = field(default_factory=dict)
    _origin: float | None = None

    def share(self, submitter: str) -> Share:
        """Smaller goes first. Comparable at one moment; it grows while boards are given out."""
        return self._held.get(submitter, 0), self._used.get(submitter, 0.0)

    def began(self, submitter: str) -> None:
        """A board was leased for the submitter."""
        self._held[submitter] = self._held.get(submitter, 0) + 1

    def ended(self, submitter: str, lasted_s: float, now: float) -> None:
        """A lease of the submitter ended after `lasted_s`; `now` is monotonic seconds."""
        left = self._held.get(submitter, 0) - 1
        if left > 0:
            self._held[submitter] = left
        else:
            self._held.pop(submitter, None)
        weight = self._weight(now)  # first: it may scale everything down
        self._used[submitter] = self._used.get(submitter, 0.0) + max(0.0, lasted_s) * weight
        if len(self._used) > MOST_SUBMITTERS:
            most = sorted(self._used, key=self._used.__getitem__, reverse=True)[: MOST_SUBMITTERS // 2]
            self._used = {who: self._used[who] for who in most}

    def used_s(self, submitter: str, now: float) -> float:
        """Board seconds of late, as they count now."""
        weight = self._weight(now)
        return self._used.get(submitter, 0.0) / weight

    def _weight(self, now: float) -> float:
        if self._origin is None:
            self._origin = now
        halvings = (now - self._origin) / USE_HALF_LIFE_S
        if halvings > MOST_HALVINGS:
            self._rebase(now, halvings)
            halvings = 0.0
        return float(2.0 ** max(halvings, -MOST_HALVINGS))

    def _rebase(self, now: float, halvings: float) -> None:
        scale = 2.0 ** -min(halvings, 1000.0)
        self._used = {who: left for who, used in self._used.items() if (left := used * scale) >= FORGOTTEN_S}
        self._origin = now
