"""Doubles and gaps in event streams: a core without I/O.

An agent numbers the events of a board without a gap, over restarts of the agent. QoS 1 may deliver one twice; a
reader that was away, or an outbox that overflowed, leaves a gap. Both are told apart here by `seq`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

MAX_REMEMBERED = 10_000  # missing numbers per board that are still waited for; older ones are forgotten


class Verdict(NamedTuple):
    """What one event is. `missing` counts the events that should have come before it and did not."""

    new: bool
    missing: int = 0
    late: bool = False
    """It fills an earlier gap."""
    restarted: bool = False
    """The agent counts from the start again: its state folder was lost."""


@dataclass(slots=True)
class _Stream:
    first: int
    highest: int
    session: int
    missing: set[int] = field(default_factory=set)
    before: set[int] = field(default_factory=set)


class EventOrder:
    """Judges events by (board, agent, seq) in the order in which they arrive."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], _Stream] = {}

    def take(self, board: str, agent: str, session: int, seq: int) -> Verdict:
        """Judge one event. The first of a stream is new, whatever its number: what was before is history."""
        stream = self._streams.get((board, agent))
        if stream is None:
            self._streams[board, agent] = _Stream(seq, seq, session)
            return Verdict(new=True)
        if seq > stream.highest:
            return self._ahead(stream, session, seq)
        if session > stream.session:
            # An old event sent again carries the session that it was made in, so a newer session with an old
            # number is a fresh count.
            self._streams[board, agent] = _Stream(seq, seq, session)
            return Verdict(new=True, restarted=True)
        if seq in stream.missing:
            stream.missing.discard(seq)
            return Verdict(new=True, late=True)
        if seq < stream.first and seq not in stream.before:
            if len(stream.before) < MAX_REMEMBERED:
                stream.before.add(seq)
            return Verdict(new=True, late=True)
        return Verdict(new=False)

    @staticmethod
    def _ahead(stream: _Stream, session: int, seq: int) -> Verdict:
        gap = seq - stream.highest - 1
        room = MAX_REMEMBERED - len(stream.missing)
        stream.missing.update(range(max(stream.highest + 1, seq - max(0, room)), seq))
        stream.highest = seq
        stream.session = max(stream.session, session)
        return Verdict(new=True, missing=gap)
