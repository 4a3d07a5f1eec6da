"""The answer to `boards`: each board's line is kept encoded, and written anew only when it has changed.

A line is a function of what stands in its `_Seen`, and of nothing else: what is kept is what would be written now.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from broker.farm_view import BoardPicture
from broker.happenings import Moment
from broker.matching.standing import Standing
from broker.requests import MAX_ANSWER_BYTES, AskBoards, response_with
from broker.scheduler import Scheduler
from wire.names import Id
from wire.payloads import Label, Payload, ShortText, Text, encode
from wire.phases import Phase, Power


class BoardLine(Payload):
    """One board in the answer to `boards`: the broker's picture. `takes_work` says how near it is to taking work."""

    board: Id
    agent: Id | None
    phase: Phase | None
    power: Power
    online: bool
    takes_work: str
    why: Text | None
    job: Id | None
    token: int | None
    holder: ShortText | None
    """The person who has reserved it."""
    labels: dict[str, Label | list[str]]


class _Seen(NamedTuple):
    """All that a line is made of."""

    picture: BoardPicture
    standing: Standing
    why: str
    job: str | None
    token: int | None
    holder: str | None

    def line(self) -> BoardLine:
        picture = self.picture
        return BoardLine(
            board=picture.name,
            agent=picture.agent,
            phase=picture.phase,
            power=picture.power,
            online=picture.online,
            takes_work=self.standing.name.lower(),
            why=self.why or None,
            job=self.job,
            token=self.token,
            holder=self.holder,
            labels={k: list(v) if isinstance(v, tuple) else v for k, v in picture.labels.items()},
        )


@dataclass(slots=True)
class BoardLines:
    """The lines of one scheduler's boards."""

    scheduler: Scheduler
    _kept: dict[str, tuple[_Seen, bytes]] = field(default_factory=dict)

    def answer(self, question: AskBoards, now: Moment) -> bytes:
        """The whole answer as it goes out: as many lines as fit, at least one where there is one."""
        names = self.scheduler.farm.names()
        if len(self._kept) > len(names):
            known = set(names)
            self._kept = {name: kept for name, kept in self._kept.items() if name in known}
        if question.after is not None:
            names = [name for name in names if name > question.after]
        lines = [self._line(name, now) for name in names[: question.limit]]
        shown = lines[: _how_many_fit(lines)]
        more = b"true" if len(shown) < len(names) else b"false"
        return response_with(question.tag, b'{"boards":[%b],"more":%b}' % (b",".join(shown), more))

    def _line(self, name: str, now: Moment) -> bytes:
        seen = self._seen(name, now)
        kept = self._kept.get(name)
        # The farm's view makes a new picture when something was heard: to compare two of them would cost more.
        if kept is not None and kept[0].picture is seen.picture and kept[0][1:] == seen[1:]:
            return kept[1]
        line = encode(seen.line())
        self._kept[name] = seen, line
        return line

    def _seen(self, name: str, now: Moment) -> _Seen:
        scheduler = self.scheduler
        picture = scheduler.farm.board(name)
        standing, why = scheduler.dispatch.standing(picture, now)
        held, person = scheduler.ledger.held.get(name), scheduler.ledger.people.get(name)
        return _Seen(
            picture,
            standing,
            why,
            held.job.id if held is not None else None,
            held.token if held is not None else None,
            person.holder if person is not None else None,
        )


def _how_many_fit(lines: list[bytes]) -> int:
    if sum(map(len, lines)) + len(lines) <= MAX_ANSWER_BYTES:
        return len(lines)
    room_bytes = MAX_ANSWER_BYTES
    for n, line in enumerate(lines):
        room_bytes -= len(line) + 1
        if room_bytes < 0 and n:
            return n
    return len(lines)
