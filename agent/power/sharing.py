"""Outlets that feed several boards: who goes off with whom, and which outlets stay on for the others. No I/O.

An outlet of one board is its own; the others are shared. A board with an outlet of its own is switched off by that
one, and what it shares stays on for as long as another board there is not off. A board without one can only go
together with those that share its outlets.
"""

from collections.abc import Callable, Mapping

from agent.power.feed import OutletRef
from wire.phases import PowerAction


class Sharing:
    """What the feeds of a host have in common."""

    def __init__(self, feeds: Mapping[str, tuple[OutletRef, ...]]) -> None:
        self._feeds = dict(feeds)
        self._users: dict[OutletRef, list[str]] = {}
        for board, refs in feeds.items():
            for ref in refs:
                self._users.setdefault(ref, []).append(board)

    def users(self, ref: OutletRef) -> list[str]:
        """The boards that an outlet feeds."""
        return self._users.get(ref, [])

    def neighbours(self, board: str) -> list[str]:
        """The other boards that share an outlet with this one, in the order of the settings."""
        users = {user for ref in self._feeds[board] for user in self.users(ref)} - {board}
        return [other for other in self._feeds if other in users] if users else []

    def groups(self) -> list[list[str]]:
        """All boards, those together that are joined by shared outlets: they are switched one at a time."""
        left, groups = dict.fromkeys(self._feeds), []
        while left:
            group = [next(iter(left))]
            for board in group:
                left.pop(board, None)
                group += [other for other in self.neighbours(board) if other not in group]
            groups.append(group)
        return groups

    def moved_with(self, board: str, action: PowerAction) -> list[str]:
        """The other boards whose power changes when `action` is done to this one."""
        if action is not PowerAction.ON:
            return [] if self._has_own(board) else self.neighbours(board)
        return [other for other in self.neighbours(board) if set(self._feeds[other]) <= set(self._feeds[board])]

    def off_feed(self, board: str, is_off: Callable[[str], bool]) -> tuple[OutletRef, ...]:
        """The outlets that go off when this board does."""
        refs = self._feeds[board]
        if not self._has_own(board):
            return refs
        return tuple(ref for ref in refs if all(other == board or is_off(other) for other in self.users(ref)))

    def _has_own(self, board: str) -> bool:
        return any(len(self.users(ref)) == 1 for ref in self._feeds[board])
