"""Boards for a whole group in one decision: all of them, or none. Pure.

Nothing is held for a group that waits, so two groups that want the same boards cannot wait for each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.matching.board_pool import FREE, BoardPool, Entry, Rank
from broker.matching.waiting import Needs

_Cost = tuple[bool, int, int, Rank]


@dataclass(frozen=True, slots=True)
class Wish:
    """What one member wants. `avoid` names boards that have failed it, taken only when nothing else is left."""

    needs: Needs
    avoid: frozenset[str] = frozenset()


def choose(wishes: Sequence[Wish], pool: BoardPool) -> list[Entry] | None:
    """A free board for each wish, no board twice, or None where not all can be served now.

    Ready boards go first. Members with fewer boards to choose from choose first; an augmenting path (Kuhn) moves
    them where that serves one more, so that a way is found whenever there is one.
    """
    chosen: dict[str, int] = {}
    options = [_options(wish, len(wishes), pool) for wish in wishes]
    for n in sorted(range(len(wishes)), key=lambda n: len(options[n])):
        if not _place(n, options, chosen, set()):
            return None
    board_of = {n: board for board, n in chosen.items()}
    return [pool.entries[board_of[n]] for n in range(len(wishes))]


def _place(n: int, options: list[list[str]], chosen: dict[str, int], seen: set[str]) -> bool:
    for board in options[n]:
        if board not in chosen:
            chosen[board] = n
            return True
    for board in options[n]:
        if board in seen:
            continue
        seen.add(board)
        if _place(chosen[board], options, chosen, seen):
            chosen[board] = n
            return True
    return False


def _options(wish: Wish, size: int, pool: BoardPool) -> list[str]:
    """Free boards that would do, the best first. More than the group has members of one kind are never needed."""
    if wish.needs.board is not None:
        entry = pool.entries.get(wish.needs.board)
        fits = entry is not None and entry.standing in FREE and could_do(wish.needs, entry)
        return [wish.needs.board] if fits else []
    found: list[_Cost] = []
    for kind in pool.free_kinds:
        if not kind.has(wish.needs.wants):
            continue
        for standing in FREE:
            ranks = kind.free[standing]
            liked = [rank for rank in ranks[: size + len(wish.avoid)] if rank[2] not in wish.avoid][:size]
            found += [(False, int(standing), kind.free_count, rank) for rank in liked]
            found += [(True, int(standing), kind.free_count, rank) for rank in ranks if rank[2] in wish.avoid]
    return [cost[3][2] for cost in sorted(found, key=lambda cost: cost[:3] + cost[3])]


def could_do(needs: Needs, entry: Entry) -> bool:
    """Whether the board could do it, were it free."""
    if needs.board is not None and needs.board != entry.name:
        return False
    return all(want.met_by(entry.labels) for want in needs.wants)
