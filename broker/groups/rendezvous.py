"""Where the boards of a group meet: the messages of LAVA's MultiNode API. Pure: no I/O, no clock.

The semantics are those of LAVA's documentation ("MultiNode API"): a message stays until the group ends; `wait` ends
when any other board has sent it, `wait-all` when all others have, or all of a role; `sync` sends and waits for all.
Where LAVA would wait for ever, because a board that is waited for has ended, the call fails and says so.

What was sent is a list of `Sent`; adding the same ones in the same order gives the same rendezvous again, so it is
enough to store them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_NAME_LETTERS = 256
MAX_MESSAGES = 10_000
"""Of one group; a script that sends in a loop must not fill the broker's memory."""
MAX_DATA_LETTERS = 1 << 20
"""Of one group: keys and values. The API is for messages, not for files."""


class Verb(StrEnum):
    SEND = "send"
    WAIT = "wait"
    WAIT_ALL = "wait-all"
    SYNC = "sync"


class CallError(Exception):
    """The call can never be answered as it was meant. The message is for the log of the job that made it."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a board asks. `id` is its own name for the call: a repetition is known by it."""

    id: str
    verb: Verb
    name: str
    """The message's id."""
    role: str | None = None
    """For `wait-all`: only boards of this role are waited for."""
    data: tuple[tuple[str, str], ...] = ()


def parse_call(name: str, text: str) -> Call:
    """A call from the lines that the board's scripts write: `VERB ID [ROLE]`, then `KEY=VALUE` lines.

    Raises:
        CallError: it is no call.
    """
    first, *rest = text.rstrip("\n").split("\n")
    words = first.split()
    if len(words) < 2 or words[0] not in set(Verb):
        raise CallError(f"{first[:100]!r} is no call: write one of {', '.join(Verb)} and the id of a message")
    verb, message = Verb(words[0]), words[1]
    if len(message) > MAX_NAME_LETTERS:
        raise CallError(f"the id {message[:40]!r}... has more than {MAX_NAME_LETTERS} letters")
    if len(words) > (3 if verb is Verb.WAIT_ALL else 2):
        raise CallError(f"{first[:100]!r}: too many words for {verb.value}")
    data = {}
    for line in rest:
        key, equals, value = line.partition("=")
        if not equals or not key:
            raise CallError(f"{line[:100]!r} is not KEY=VALUE")
        data[key] = value
    return Call(name, verb, message, words[2] if len(words) > 2 else None, tuple(data.items()))


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that a board has sent, by `send` or by `sync`."""

    board: str
    call: Call


@dataclass(slots=True)
class Rendezvous:
    """One run of a group. `roles` names its boards, in order, and the role of each."""

    roles: Mapping[str, str]
    messages: dict[str, dict[str, tuple[tuple[str, str], ...]]] = field(default_factory=dict)
    """By message id and board."""
    ended: set[str] = field(default_factory=set)
    """Boards whose part is over: they send nothing any more."""
    _syncs: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By message id and board: the calls, one per round, so that an id can be used for several syncs."""
    _known: set[tuple[str, str]] = field(default_factory=set)
    _letters: int = 0

    def add(self, sent: Sent) -> bool:
        """Take in a message; whether it is a new one.

        Raises:
            CallError: the group has sent too much.
        """
        key = (sent.board, sent.call.id)
        if key in self._known:
            return False
        letters = sum(len(k) + len(v) for k, v in sent.call.data)
        if len(self._known) >= MAX_MESSAGES or self._letters + letters > MAX_DATA_LETTERS:
            raise CallError(
                f"the group has sent {len(self._known)} messages with {self._letters} letters: no more is taken"
            )
        self._known.add(key)
        self._letters += letters
        call = sent.call
        if call.verb is Verb.SYNC:
            self._syncs.setdefault(call.name, {}).setdefault(sent.board, []).append(call.id)
            self.messages.setdefault(call.name, {}).setdefault(sent.board, ())
        else:
            self.messages.setdefault(call.name, {})[sent.board] = call.data
        return True

    def answer(self, board: str, call: Call) -> str | None:
        """The text that answers the call, or None while it has to wait. `send` and `sync` must have been added.

        Raises:
            CallError: what it waits for can never come, or there is no such role.
        """
        match call.verb:
            case Verb.SEND:
                return ""
            case Verb.WAIT:
                return self._wait(board, call)
            case Verb.WAIT_ALL:
                return self._wait_all(board, call)
            case Verb.SYNC:
                return self._sync(board, call)

    def _wait(self, board: str, call: Call) -> str | None:
        others = [other for other in self.roles if other != board]
        found = self.messages.get(call.name, {})
        lines = [f"{key}={value}" for other in others if other in found for key, value in found[other]]
        if any(other in found for other in others):
            return "".join(f"{line}\n" for line in lines)
        if all(other in self.ended for other in others):
            raise CallError(f"{call.name}: nobody is left to send it; {_told(others)} ended without")
        return None

    def _wait_all(self, board: str, call: Call) -> str | None:
        if call.role is not None and call.role not in self.roles.values():
            known = ", ".join(dict.fromkeys(self.roles.values()))
            raise CallError(f"{call.name}: there is no role {call.role!r}; the roles are {known}")
        wanted = [
            other for other, role in self.roles.items() if other != board and (call.role is None or role == call.role)
        ]
        found = self.messages.get(call.name, {})
        if not self._all_there(call, wanted, found):
            return None
        return "".join(
            f"{other}:{key}={value}\n" for other in self.roles if other in found for key, value in found[other]
        )

    def _sync(self, board: str, call: Call) -> str | None:
        rounds = self._syncs.get(call.name, {})
        mine = rounds.get(board, [])
        if call.id not in mine:
            raise CallError(f"{call.name}: this sync was never begun")
        number = mine.index(call.id)
        there = {other for other, calls in rounds.items() if len(calls) > number}
        return "" if self._all_there(call, [other for other in self.roles if other != board], there) else None

    def _all_there(self, call: Call, wanted: list[str], there: Iterable[str]) -> bool:
        missing = [other for other in wanted if other not in set(there)]
        gone = [other for other in missing if other in self.ended]
        if gone:
            raise CallError(f"{call.name}: {_told(gone)} ended without sending it")
        return not missing


def _told(boards: list[str]) -> str:
    return ", ".join(boards) or "no other board"
